#!/bin/sh
# The maps of an image from the gateway, with curl: predict.sh IMAGE [ADDRESS]
set -eu
image=$1
url=${2:-http://127.0.0.1:8000}

# Everything in one JSON document; each map is a base64 PNG in it.
curl -fsS -F "image=@\"$image\"" "$url/predict" -o maps.json
# Two of the maps as arrays: numpy.load("maps.npz")["depth"] is metres.
curl -fsS --data-binary "@$image" -H 'Content-Type: application/octet-stream' \
    "$url/predict?format=npz&tasks=depth,normals" -o maps.npz
