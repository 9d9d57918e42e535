// Cuts through a volume on canvases: grey values through a window, contours, surface beyond tolerance. Lengths are in mm.
import { trace } from "./contour.js";

export const PLANES = ["axial", "coronal", "sagittal"];
const AXIS = { axial: 0, coronal: 1, sagittal: 2 };
const LETTERS = { axial: ["R", "L", "A", "P"], coronal: ["R", "L", "H", "F"], sagittal: ["A", "P", "H", "F"] };
const RED = "#ff3b30", AMBER = "#ffba52", INK = "#e2e5e9", QUIET = "#9aa3ad";

/** Where the voxels of a volume lie, and how its planes cut it. */
export class Geometry {
  constructor(volume) {
    this.volume = volume;
    const { z_mm } = volume;
    this.top = z_mm[z_mm.length - 1];
    const steps = z_mm.slice(1).map((z, i) => z - z_mm[i]);
    this.step = steps.length ? Math.min(...steps) : 1;
    this.lines = Math.max(1, Math.round((this.top - z_mm[0]) / this.step) + 1);
    this.sliceOf = Array.from({ length: this.lines }, (_, line) => this.nearest(this.top - line * this.step));
    this.drift = volume.head.drift_mm;
  }
  /** The slice that lies nearest to a height. */
  nearest(z) {
    const { z_mm } = this.volume;
    let best = 0;
    for (let i = 1; i < z_mm.length; i++) if (Math.abs(z_mm[i] - z) < Math.abs(z_mm[best] - z)) best = i;
    return best;
  }
  /** The height of a place between slices, counted in slices. */
  height(place) {
    const { z_mm } = this.volume, last = z_mm.length - 1;
    const low = Math.max(0, Math.min(last - 1, Math.floor(place)));
    if (last === 0) return z_mm[0] + place * this.step;
    return z_mm[low] + (place - low) * (z_mm[low + 1] - z_mm[low]);
  }
  /** How much further along an axis (1 y, 2 x) a slice lies. */
  shift(slice, axis) {
    if (!this.drift) return 0;
    const last = this.drift.length - 1, low = Math.max(0, Math.min(last - 1, Math.floor(slice)));
    if (last === 0) return this.drift[0][axis - 1];
    return this.drift[low][axis - 1] + (slice - low) * (this.drift[low + 1][axis - 1] - this.drift[low][axis - 1]);
  }
  /** The index along an axis (1 y, 2 x) at which a slice meets the plane through a voxel; another than the voxel's own where slices drift. */
  along(at, slice, axis) {
    if (!this.drift) return at[axis];
    return Math.round(at[axis] - (this.shift(slice, axis) - this.shift(at[0], axis)) / this.volume.spacing[axis - 1]);
  }
}

/** One plane on one canvas. */
export class Plane {
  constructor(name, canvas, state) {
    Object.assign(this, { name, canvas, state, axis: AXIS[name], zoom: 1, pan: [0, 0], pointer: null, far: [], spent: 0 });
    this.off = document.createElement("canvas");
    this.base = document.createElement("canvas"); // all but the cross and the words: it stays while other planes are scrolled
    this.key = null;
  }

  get index() { return this.state.at[this.axis]; }
  get count() { return this.state.volume.size[this.axis]; }

  /** Middle and size in mm of what is shown at zoom 1. */
  get extent() {
    const { volume, geometry } = this.state, [dy, dx] = volume.spacing, [, rows, columns] = volume.size;
    const long = geometry.top - volume.z_mm[0] + geometry.step;
    const wide = { axial: columns * dx, coronal: columns * dx, sagittal: rows * dy }[this.name];
    return { width: wide, height: this.name === "axial" ? rows * dy : long };
  }

  get scale() {
    const { width, height } = this.extent, ratio = window.devicePixelRatio || 1;
    return this.zoom * Math.min(this.canvas.width / (width + 4), this.canvas.height / (height + 4)) || ratio;
  }

  /** Screen (device pixels) of a point (down, across) in mm, both from the upper left corner of the shown part. */
  toScreen([down, across]) {
    const { width, height } = this.extent, s = this.scale;
    return [this.canvas.width / 2 + (across - width / 2) * s + this.pan[0], this.canvas.height / 2 + (down - height / 2) * s + this.pan[1]];
  }
  toMm(x, y) {
    const { width, height } = this.extent, s = this.scale;
    return [(y - this.canvas.height / 2 - this.pan[1]) / s + height / 2, (x - this.canvas.width / 2 - this.pan[0]) / s + width / 2];
  }

  /** Voxel (z, y, x), counted in the shown part, under a point of the screen. */
  voxelAt(x, y) {
    const { volume, geometry, at } = this.state, [dy, dx] = volume.spacing, [down, across] = this.toMm(x, y);
    const z = this.name === "axial" ? at[0] : geometry.nearest(geometry.top + geometry.step / 2 - down);
    const found = {
      axial: () => [z, Math.floor(down / dy), Math.floor(across / dx)],
      coronal: () => [z, geometry.along(at, z, 1), Math.floor((across - geometry.shift(z, 2)) / dx)],
      sagittal: () => [z, Math.floor((across - geometry.shift(z, 1)) / dy), geometry.along(at, z, 2)],
    }[this.name]();
    return found.map((value, axis) => Math.max(0, Math.min(volume.size[axis] - 1, value)));
  }

  /** Draw the plane as the state says. */
  draw() {
    const began = performance.now(), { canvas, state } = this, context = canvas.getContext("2d", { alpha: false });
    const key = [this.index, state.geometry.drift && state.at[0], state.version, this.zoom, ...this.pan, canvas.width, canvas.height].join();
    if (key !== this.key) {
      this.key = key;
      if (this.base.width !== canvas.width || this.base.height !== canvas.height) Object.assign(this.base, { width: canvas.width, height: canvas.height });
      const base = this.base.getContext("2d", { alpha: false });
      base.fillStyle = "#000";
      base.fillRect(0, 0, canvas.width, canvas.height);
      this.drawImage(base);
      this.far = [];
      if (state.contours) this.drawOrgans(base);
    }
    context.drawImage(this.base, 0, 0);
    this.drawCross(context);
    this.drawWords(context);
    this.spent = performance.now() - began;
  }

  drawImage(context) {
    const { volume, geometry, lut, at } = this.state, { rows, columns, images } = volume, step = volume.head.window.step;
    const width = this.name === "sagittal" ? rows : columns, height = this.name === "axial" ? rows : geometry.lines;
    if (this.off.width !== width || this.off.height !== height || !this.pixels) {
      this.off.width = width;
      this.off.height = height;
      this.paper = this.off.getContext("2d");
      this.data = this.paper.createImageData(width, height);
      this.pixels = new Uint32Array(this.data.data.buffer);
    }
    const { pixels } = this;
    if (this.name === "axial") {
      const image = images[at[0]];
      if (image) for (let i = 0; i < image.length; i++) pixels[i] = lut[image[i]];
      else pixels.fill(0xff000000);
    } else {
      for (let line = 0, out = 0; line < height; line++, out += width) {
        const slice = geometry.sliceOf[line], image = images[slice];
        if (!image) { pixels.fill(0xff000000, out, out + width); continue; }
        if (this.name === "coronal") {
          const y = Math.floor(geometry.along(at, slice, 1) / step), shift = Math.round(geometry.shift(slice, 2) / volume.spacing[1] / step);
          for (let x = 0; x < width; x++) { const from = x - shift; pixels[out + x] = y >= 0 && y < rows && from >= 0 && from < columns ? lut[image[y * columns + from]] : 0xff000000; }
        } else {
          const x = Math.floor(geometry.along(at, slice, 2) / step), shift = Math.round(geometry.shift(slice, 1) / volume.spacing[0] / step);
          for (let y = 0; y < width; y++) { const from = y - shift; pixels[out + y] = x >= 0 && x < columns && from >= 0 && from < rows ? lut[image[from * columns + x]] : 0xff000000; }
        }
      }
    }
    this.paper.putImageData(this.data, 0, 0);
    const [left, top] = this.toScreen([0, 0]), s = this.scale, [dy, dx] = volume.spacing;
    const across = this.name === "sagittal" ? dy * step : dx * step, down = this.name === "axial" ? dy * step : geometry.step;
    const early = (spacing) => ((step - 1) / 2) * spacing * s; // of step voxels the first is kept: it is the middle of its pixel
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "medium";
    context.drawImage(this.off, left - early(across / step), top - (this.name === "axial" ? early(dy) : 0), width * across * s, height * down * s);
  }

  /** The organ's mask in this plane with a rim of zeros, and where it begins (down, across) in voxels of the shown part. */
  cut(mask) {
    const { at, volume, geometry } = this.state, [[z0], [y0], [x0]] = mask.box, [, oy, ox] = volume.first, [nz, ny, nx] = mask.size;
    if (this.name === "axial") {
      const z = at[0] - z0;
      if (z < 0 || z >= nz) return null;
      return this.padded(ny, nx, [y0 - oy, x0 - ox], (y) => mask.voxels.subarray((z * ny + y) * nx, (z * ny + y + 1) * nx));
    }
    const voxels = mask.voxels, line = new Uint8Array(this.name === "coronal" ? nx : ny);
    let any = false;
    const made = this.padded(nz, line.length, [z0, this.name === "coronal" ? x0 - ox : y0 - oy], (z) => {
      line.fill(0);
      if (this.name === "coronal") {
        const y = geometry.along(at, z0 + z, 1) - (y0 - oy);
        if (y >= 0 && y < ny) { line.set(voxels.subarray((z * ny + y) * nx, (z * ny + y + 1) * nx)); any = true; }
      } else {
        const x = geometry.along(at, z0 + z, 2) - (x0 - ox);
        if (x >= 0 && x < nx) { for (let y = 0; y < ny; y++) line[y] = voxels[(z * ny + y) * nx + x]; any = true; }
      }
      return line;
    });
    return any ? made : null;
  }

  padded(height, width, begin, row) {
    const w = width + 2, mask = new Uint8Array((height + 2) * w);
    for (let i = 0; i < height; i++) mask.set(row(i), (i + 1) * w + 1);
    return { mask, h: height + 2, w, begin };
  }

  /** Which corners of a cut lie beyond tolerance: bytes with the distance in mm, rounded up, of at most 255. */
  farCorners(points, cut) {
    if (!points || !points.count) return null;
    const { at, volume, geometry } = this.state, { rows } = points, far = new Uint16Array(cut.h * cut.w), [, oy, ox] = volume.first, [b0, b1] = cut.begin;
    let any = false;
    const put = (i, j, tenths) => {
      if (i < 0 || j < 0 || i >= cut.h || j >= cut.w) return;
      const place = i * cut.w + j;
      if (far[place] < tenths) far[place] = tenths;
      any = true;
    };
    if (this.name === "axial") {
      for (let n = points.from(at[0]); n < points.count && rows[4 * n] <= at[0] + 1; n++) put(rows[4 * n + 1] - oy - b0 + 1, rows[4 * n + 2] - ox - b1 + 1, rows[4 * n + 3]);
    } else {
      const axis = this.axis, other = axis === 1 ? 2 : 1, offset = axis === 1 ? oy : ox, behind = axis === 1 ? ox : oy;
      for (let n = 0; n < points.count; n++) {
        const z = rows[4 * n], layer = rows[4 * n + axis] - offset, here = geometry.along(at, Math.min(z, volume.slices - 1), axis);
        if (layer === here || layer === here + 1) put(z - b0 + 1, rows[4 * n + other] - behind - b1 + 1, rows[4 * n + 3]);
      }
    }
    return any ? far : null;
  }

  /** A function from a place (y, x) in a padded cut to the screen. */
  placing(cut) {
    const { volume, geometry } = this.state, [dy, dx] = volume.spacing, [left, top] = this.toScreen([0, 0]), s = this.scale, [b0, b1] = cut.begin;
    if (this.name === "axial") return (y, x) => [left + (b1 + x - 0.5) * dx * s, top + (b0 + y - 0.5) * dy * s];
    const axis = this.name === "coronal" ? 2 : 1, step = axis === 2 ? dx : dy, floor = geometry.top + geometry.step / 2;
    return (y, x) => [left + ((b1 + x - 0.5) * step + geometry.shift(b0 + y - 1, axis)) * s, top + (floor - geometry.height(b0 + y - 1)) * s];
  }

  drawOrgans(context) {
    const { state } = this, { volume } = state, ratio = window.devicePixelRatio || 1;
    const overlay = state.overlay >= 0 ? volume.overlays[state.overlay] : null;
    const largest = [...state.organs].sort((a, b) => b.volume_ml - a.volume_ml);
    context.lineJoin = "round";
    for (const organ of largest) {
      if (state.hidden.has(organ.name)) continue;
      const chosen = state.chosen === organ.name, dim = state.chosen && !chosen ? 0.8 : 1;
      const beyond = overlay?.beyond.get(organ.name);
      const theirs = overlay?.masks.get(organ.name), ours = volume.masks.get(organ.name);
      context.globalAlpha = dim;
      if (ours) this.drawOrgan(context, ours, organ.colour, { far: beyond?.predicted, fill: chosen ? 0.22 : 0.1, width: (chosen ? 2.4 : 1.7) * ratio });
      if (theirs) this.drawOrgan(context, theirs, organ.colour, { far: beyond?.reference, fill: 0, width: 1.4 * ratio, dash: [5 * ratio, 4 * ratio] });
      context.globalAlpha = 1;
    }
    this.drawFar(context, ratio);
  }

  drawOrgan(context, mask, colour, { far, fill, width, dash = [] }) {
    const cut = this.cut(mask);
    if (!cut) return;
    const traced = trace(cut.mask, cut.h, cut.w, this.farCorners(far, cut));
    if (!traced.loops.length) return;
    const path = new Path2D(), place = this.placing(cut);
    for (const loop of traced.loops) {
      for (let i = 0; i < loop.length; i += 2) {
        const [x, y] = place(loop[i], loop[i + 1]);
        if (i) path.lineTo(x, y); else path.moveTo(x, y);
      }
      path.closePath();
    }
    context.strokeStyle = context.fillStyle = colour;
    if (fill) {
      const alpha = context.globalAlpha;
      context.globalAlpha = alpha * fill;
      context.fill(path, "evenodd");
      context.globalAlpha = alpha;
    }
    context.lineWidth = width;
    context.setLineDash(dash);
    context.stroke(path);
    context.setLineDash([]);
    for (const [y0, x0, y1, x1, tenths] of traced.far) this.far.push({ from: place(y0, x0), to: place(y1, x1), mm: tenths / 10, dashed: dash.length > 0 });
  }

  /** The surface beyond tolerance, and how far away it is where it is farthest. */
  drawFar(context, ratio) {
    if (!this.far.length) return;
    let most = this.far[0];
    context.strokeStyle = RED;
    context.lineCap = "round";
    for (const dashed of [false, true]) {
      context.beginPath();
      for (const piece of this.far) {
        if (piece.mm > most.mm) most = piece;
        if (piece.dashed !== dashed) continue;
        context.moveTo(...piece.from);
        context.lineTo(...piece.to);
      }
      context.lineWidth = (dashed ? 1.6 : 3) * ratio;
      context.stroke();
    }
    context.lineCap = "butt";
    this.label(context, `${most.mm.toFixed(1)} mm`, most.from[0] + 8 * ratio, most.from[1] - 8 * ratio, { colour: "#ff8a80", size: 12 });
  }

  /** Show what is denser than air in this plane, and a rim. */
  focus() {
    const { volume, at } = this.state, image = volume.images[at[0]], { rows, columns } = volume, step = volume.head.window.step, [dy, dx] = volume.spacing;
    if (this.name !== "axial" || !image) return;
    const dense = volume.head.hu.findIndex((unit) => unit > -300);
    let [top, bottom, left, right] = [rows, 0, columns, 0];
    for (let y = 0, i = 0; y < rows; y++) for (let x = 0; x < columns; x++, i++) if (image[i] >= dense) { top = Math.min(top, y); bottom = Math.max(bottom, y); left = Math.min(left, x); right = Math.max(right, x); }
    if (bottom <= top || right <= left) return;
    this.zoom = 1;
    const whole = this.scale, height = (bottom - top) * dy * step + 30, width = (right - left) * dx * step + 30;
    this.zoom = Math.max(1, Math.min(this.canvas.width / width, this.canvas.height / height) / whole);
    this.pan = [0, 0];
    const [x, y] = this.toScreen([((top + bottom) / 2) * dy * step, ((left + right) / 2) * dx * step]);
    this.pan = [this.canvas.width / 2 - x, this.canvas.height / 2 - y];
  }

  /** How far the surface under a point lies from the other one; null where none is near. */
  farAt(x, y) {
    const reach = 9 * (window.devicePixelRatio || 1);
    let best = null, nearest = reach;
    for (const piece of this.far) {
      const distance = Math.hypot(piece.from[0] - x, piece.from[1] - y);
      if (distance < nearest) [nearest, best] = [distance, piece];
    }
    return best;
  }

  drawCross(context) {
    const { at, volume, geometry, cross } = this.state;
    if (!cross) return;
    const [dy, dx] = volume.spacing, ratio = window.devicePixelRatio || 1;
    const z = geometry.top - volume.z_mm[at[0]] + geometry.step / 2, y = (at[1] + 0.5) * dy, x = (at[2] + 0.5) * dx;
    const [down, across] = { axial: [y, x], coronal: [z, x + geometry.shift(at[0], 2)], sagittal: [z, y + geometry.shift(at[0], 1)] }[this.name];
    const [sx, sy] = this.toScreen([down, across]), gap = 14 * ratio;
    context.strokeStyle = "rgba(140, 190, 205, 0.38)";
    context.lineWidth = ratio;
    context.beginPath();
    for (const [x0, y0, x1, y1] of [[0, sy, sx - gap, sy], [sx + gap, sy, this.canvas.width, sy], [sx, 0, sx, sy - gap], [sx, sy + gap, sx, this.canvas.height]]) { context.moveTo(x0, y0); context.lineTo(x1, y1); }
    context.stroke();
  }

  drawWords(context) {
    const { canvas, state } = this, ratio = window.devicePixelRatio || 1, [left, right, top, bottom] = LETTERS[this.name];
    const edge = 12 * ratio, middle = canvas.height / 2, centre = canvas.width / 2;
    this.label(context, left, edge, middle, {});
    this.label(context, right, canvas.width - edge, middle, { align: "right" });
    this.label(context, top, centre, edge + 4 * ratio, { align: "center" });
    this.label(context, bottom, centre, canvas.height - edge, { align: "center" });
    const head = state.volume.head, number = this.name === "axial" ? `slice ${head.slice_numbers[this.index]} of ${head.slices}` : `${this.name} ${this.index + 1} of ${this.count}`;
    this.label(context, number, edge, edge + 6 * ratio, { colour: INK, size: 12 });
    this.label(context, "UNAPPROVED", canvas.width - edge, edge + 6 * ratio, { colour: AMBER, align: "right", size: 12 });
    if (this.name === "axial") this.label(context, `${state.width} / ${state.level} HU`, edge, edge + 24 * ratio, { colour: QUIET, size: 11 });
    const bar = 50 * this.scale, y = canvas.height - edge, x = canvas.width - edge;
    if (bar < canvas.width * 0.6) {
      context.strokeStyle = INK;
      context.lineWidth = 1.5 * ratio;
      context.beginPath();
      context.moveTo(x - bar, y - 4 * ratio); context.lineTo(x - bar, y); context.lineTo(x, y); context.lineTo(x, y - 4 * ratio);
      context.stroke();
      this.label(context, "50 mm", x - bar / 2, y - 5 * ratio, { align: "center", colour: QUIET, size: 11 });
    }
    if (this.pointer) this.label(context, this.pointer, edge, canvas.height - edge, { colour: INK, size: 12 });
  }

  label(context, text, x, y, { colour = "#bec5ce", align = "left", size = 13 }) {
    const ratio = window.devicePixelRatio || 1;
    context.font = `500 ${size * ratio}px system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif`;
    context.textAlign = align;
    context.textBaseline = "middle";
    context.lineWidth = 3 * ratio;
    context.strokeStyle = "rgba(0, 0, 0, 0.85)";
    context.lineJoin = "round";
    context.strokeText(text, x, y);
    context.fillStyle = colour;
    context.fillText(text, x, y);
  }
}

/** 256 pixels (AABBGGRR): what a window makes of each grey value. */
export function lookUp(units, level, width) {
  const table = new Uint32Array(256), low = level - width / 2;
  for (let i = 0; i < 256; i++) {
    const unit = units[Math.min(i, units.length - 1)], grey = Math.max(0, Math.min(255, Math.round(((unit - low) / width) * 255)));
    table[i] = (0xff000000 | (grey << 16) | (grey << 8) | grey) >>> 0;
  }
  return table;
}
