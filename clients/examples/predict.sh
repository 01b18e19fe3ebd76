#!/bin/sh
# The maps of a photo from the gateway, with curl: predict.sh PHOTO [ADDRESS]
set -eu
photo=$1
url=${2:-http://127.0.0.1:8000}

# Everything in one JSON document; each map is a base64 PNG in it.
curl -fsS -F "image=@\"$photo\"" "$url/predict" -o maps.json
# Two of the maps as arrays: numpy.load("maps.npz")["depth"] is metres.
curl -fsS --data-binary "@$photo" -H 'Content-Type: application/octet-stream' \
    "$url/predict?format=npz&tasks=depth,normals" -o maps.npz
