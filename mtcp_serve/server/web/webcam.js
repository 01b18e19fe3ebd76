// The camera: a picture of it in a video element, and frames as JPEG files.

const QUALITY = 0.92;
const WANTED = { video: { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "environment" }, audio: false };

const REASONS = {
  NotAllowedError: "The camera was refused. Allow it for this page in the browser's settings, then try again.",
  NotFoundError: "No camera was found.",
  NotReadableError: "Another program uses the camera.",
};

export class Webcam {
  #stream = null;

  /** `lost()` is called when the camera goes away by itself: unplugged, or no longer allowed. */
  constructor(video, lost) {
    this.video = video;
    this.lost = lost;
  }

  get running() {
    return this.#stream !== null;
  }

  /** Throws an Error whose message is for people. */
  async start() {
    if (!navigator.mediaDevices) {
      throw new Error("Browsers give the camera only to pages from https or from this machine (localhost).");
    }
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia(WANTED);
    } catch (error) {
      throw new Error(REASONS[error.name] ?? `The camera cannot be used: ${error.message}`);
    }
    for (const track of this.#stream.getTracks()) track.addEventListener("ended", this.lost);
    this.video.srcObject = this.#stream;
    try {
      await this.video.play();
    } catch (error) {
      this.stop();
      throw new Error(`The camera cannot be used: ${error.message}`);
    }
  }

  stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.video.srcObject = null;
  }

  /** The frame that is shown now, a Blob. */
  frame() {
    const canvas = document.createElement("canvas");
    canvas.width = this.video.videoWidth;
    canvas.height = this.video.videoHeight;
    canvas.getContext("2d").drawImage(this.video, 0, 0);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  }
}
