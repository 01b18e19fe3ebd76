// The mesh on the graphics card: WebGL 2, one texture, one camera that circles a point before it.

const VERTEX = `#version 300 es
in vec3 point;
uniform vec2 tangents;
uniform mat4 camera;
uniform float size;
out vec2 place;
void main() {
  place = vec2(0.5 + 0.5 * point.x, 0.5 - 0.5 * point.y);
  gl_Position = camera * vec4(point.xy * tangents * point.z, -point.z, 1.0);
  gl_PointSize = size;
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec2 place;
uniform sampler2D picture;
out vec4 color;
void main() { color = vec4(texture(picture, place).rgb, 1.0); }`;

export class Renderer {
  #counts = { triangles: 0, points: 0 };

  /** Throws where the browser has no WebGL 2. */
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { antialias: true });
    if (!this.gl) throw new Error("no WebGL 2");
    this.#prepare();
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.#prepare();
      canvas.dispatchEvent(new Event("restored"));
    });
  }

  #prepare() {
    const gl = this.gl;
    this.program = gl.createProgram();
    for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
    }
    gl.linkProgram(this.program);
    gl.useProgram(this.program);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    this.indices = { triangles: gl.createBuffer(), points: gl.createBuffer() };
    const point = gl.getAttribLocation(this.program, "point");
    gl.enableVertexAttribArray(point);
    gl.vertexAttribPointer(point, 3, gl.FLOAT, false, 0, 0);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
    gl.enable(gl.DEPTH_TEST);
    gl.clearColor(0, 0, 0, 0); // the ground of the canvas, behind it
  }

  setMesh(mesh) {
    const gl = this.gl;
    gl.bufferData(gl.ARRAY_BUFFER, mesh.vertices, gl.STATIC_DRAW);
    for (const [name, buffer] of Object.entries(this.indices)) {
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh[name], gl.STATIC_DRAW);
      this.#counts[name] = mesh[name].length;
    }
  }

  setPicture(canvas) {
    const gl = this.gl;
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, canvas);
  }

  /**
   * `tangents` of half the fields of view, across and down; `camera` is a 4x4 matrix by columns; points of
   * `size` pixels instead of the surface where that is not 0.
   */
  draw(tangents, camera, size = 0) {
    const gl = this.gl;
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.uniform2fv(gl.getUniformLocation(this.program, "tangents"), tangents);
    gl.uniformMatrix4fv(gl.getUniformLocation(this.program, "camera"), false, camera);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const what = size > 0 ? "points" : "triangles";
    gl.uniform1f(gl.getUniformLocation(this.program, "size"), size);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.indices[what]);
    gl.drawElements(size > 0 ? gl.POINTS : gl.TRIANGLES, this.#counts[what], gl.UNSIGNED_INT, 0);
  }
}

/**
 * What a camera sees that looks at the point `pivot` before the image's own camera, from `distance` away,
 * turned by `yaw` and `pitch` (radians); `tangents` are of half its fields of view. By columns.
 */
export function cameraMatrix({ yaw, pitch, pivot, distance, tangents, near, far }) {
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  const rotation = [ // rows: first about the upright axis, then about the one across
    [cy, 0, sy],
    [sp * sy, cp, -sp * cy],
    [-cp * sy, sp, cp * cy],
  ];
  const shift = rotation.map((row) => row[2] * pivot); // the pivot lies at (0, 0, -pivot)
  shift[2] -= distance;
  const scale = [1 / tangents[0], 1 / tangents[1], -(far + near) / (far - near)];
  const matrix = new Float32Array(16);
  for (let column = 0; column < 4; column++) {
    const values = column < 3 ? rotation.map((row) => row[column]) : shift;
    for (let row = 0; row < 3; row++) matrix[4 * column + row] = scale[row] * values[row];
    matrix[4 * column + 3] = -values[2];
  }
  matrix[14] -= (2 * far * near) / (far - near);
  return matrix;
}
