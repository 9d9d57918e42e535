// A review's files, unpacked as they are needed: docs/web.md describes them.
import { bytes, call } from "./api.js";

const unpack = async (packed) => new Uint8Array(await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());

/** One organ's mask: a byte a voxel inside its box, made of bits when it is first looked at. */
class Mask {
  constructor(box, bits) {
    this.box = box;
    this.size = box.map(([first, end]) => end - first);
    this.bits = bits;
  }
  get voxels() {
    if (!this.made) {
      const count = this.size[0] * this.size[1] * this.size[2];
      this.made = new Uint8Array(count);
      for (let i = 0; i < count; i++) this.made[i] = (this.bits[i >> 3] >> (7 - (i & 7))) & 1;
      this.bits = null;
    }
    return this.made;
  }
}

/** Surface points in rows of four: z, y, x, distance in 0.1 mm; sorted by z. */
class Points {
  constructor(raw) {
    this.rows = new Uint16Array(raw.buffer, raw.byteOffset, raw.byteLength >> 1);
    this.count = this.rows.length >> 2;
  }
  /** The first point whose z is not below a layer's. */
  from(z) {
    let low = 0, high = this.count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[4 * middle] < z) low = middle + 1; else high = middle;
    }
    return low;
  }
}

export class Volume {
  /** What is at a job's address; the pictures follow with load(). */
  static async open(job) {
    const made = new Volume();
    made.path = `/v1/jobs/${job}/review/data`;
    made.head = await call(`/v1/jobs/${job}/review`);
    return made.prepare();
  }

  prepare() {
    const { head } = this, { window, spacing_mm, z_mm } = head;
    const count = ([first, end]) => Math.ceil((end - first) / window.step);
    this.rows = count(window.y);
    this.columns = count(window.x);
    this.slices = head.slices;
    this.images = new Array(head.slices).fill(null);
    this.loaded = 0;
    this.size = [head.slices, window.y[1] - window.y[0], window.x[1] - window.x[0]];
    this.first = [0, window.y[0], window.x[0]];
    this.spacing = spacing_mm;
    this.z_mm = z_mm;
    this.masks = new Map();
    this.overlays = head.overlays.map((overlay) => ({ names: overlay.organs.map((organ) => organ.name), volumes: new Map(overlay.organs.map((organ) => [organ.name, organ.volume_ml])), masks: new Map(), beyond: new Map() }));
    return this;
  }

  /** The slice that shows as many organs as possible, each counted as a share of its largest slice. */
  best() {
    const total = new Float64Array(this.slices);
    for (const { box, areas } of this.head.organs) {
      if (!box) continue;
      const largest = Math.max(...areas);
      areas.forEach((area, i) => (total[box[0][0] + i] += area / largest));
    }
    const most = total.indexOf(Math.max(...total));
    return total[most] > 0 ? most : this.slices >> 1;
  }

  /** Fetch one slice, then masks, then all other slices; tell after each step. */
  async load(start, told) {
    await this.loadImages(start, start + 1, told);
    await this.loadMasks();
    told("masks");
    await this.loadImages(start + 1, this.slices, told);
    await this.loadImages(0, start, told);
    told("all");
  }

  /** Masks and points lie before the pictures; those of returned contours, in a file of their own. */
  async loadMasks() {
    const end = this.head.images[0][0], own = this.head.overlays.map((overlay) => overlay.data && bytes(overlay.data));
    const read = async (answer) => new Uint8Array(await (await answer).arrayBuffer());
    const partsOf = (all) => ([first, length]) => unpack(all.subarray(first, first + length));
    const all = end ? await read(bytes(this.path, 0, end)) : new Uint8Array(), jobs = [];
    for (const organ of this.head.organs) if (organ.part) jobs.push(partsOf(all)(organ.part).then((bits) => this.masks.set(organ.name, new Mask(organ.box, bits))));
    const data = await Promise.all(own.map((answer) => (answer ? read(answer) : all)));
    this.head.overlays.forEach((overlay, i) => {
      const part = partsOf(data[i]);
      for (const organ of overlay.organs) jobs.push(part(organ.part).then((bits) => this.overlays[i].masks.set(organ.name, new Mask(organ.box, bits))));
      for (const [name, sides] of Object.entries(overlay.beyond)) {
        jobs.push(Promise.all([part(sides.predicted.part), part(sides.reference.part)]).then(([ours, theirs]) => this.overlays[i].beyond.set(name, { predicted: new Points(ours), reference: new Points(theirs) })));
      }
    });
    await Promise.all(jobs);
  }

  async loadImages(from, to, told) {
    if (from >= to) return;
    const parts = this.head.images.slice(from, to), first = parts[0][0], last = parts[parts.length - 1];
    const reader = (await bytes(this.path, first, last[0] + last[1] - first)).body.getReader();
    const buffer = new Uint8Array(last[0] + last[1] - first);
    let filled = 0, next = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (value) { buffer.set(value, filled); filled += value.length; }
      while (next < parts.length && parts[next][0] + parts[next][1] - first <= filled) {
        const [at, length] = parts[next];
        this.images[from + next] = this.undelta(await unpack(buffer.subarray(at - first, at - first + length)));
        this.loaded += 1;
        next += 1;
        told("slice", from + next - 1);
      }
      if (done) return;
    }
  }

  undelta(image) {
    const { rows, columns } = this;
    for (let y = 0, i = 0; y < rows; y++) {
      let value = 0;
      for (let x = 0; x < columns; x++, i++) image[i] = value = (value + image[i]) & 255;
    }
    return image;
  }
}
