// The boundary of a mask in a plane, as marching squares draw it: through the middle between an inside and an outside voxel.
// Voxels that touch at a corner stay in one piece, as in the RTSTRUCT (oarlock/geometry/contours.py).

// For each constellation of the four voxels around a corner (8 4 / 1 2, clockwise from the top left: a b / d c), which sides the
// line enters and leaves by: 0 top, 1 right, 2 bottom, 3 left; the inside lies on its left hand.
const SEGMENTS = (() => {
  const table = [];
  const side = { ab: 0, bc: 1, cd: 2, da: 3 };
  for (let code = 0; code < 16; code++) {
    const a = code & 8, b = code & 4, c = code & 2, d = code & 1, found = [];
    if (a && c && !b && !d) found.push([side.ab, side.bc], [side.cd, side.da]);
    else if (b && d && !a && !c) found.push([side.da, side.ab], [side.bc, side.cd]);
    else {
      const ring = [a, b, c, d], sides = [side.ab, side.bc, side.cd, side.da];
      let enter = -1, leave = -1;
      for (let i = 0; i < 4; i++) {
        const here = ring[i], next = ring[(i + 1) % 4];
        if (here && !next) enter = sides[i];
        if (!here && next) leave = sides[i];
      }
      if (enter >= 0) found.push([enter, leave]);
    }
    table.push(found);
  }
  return table;
})();

let following = new Int32Array(0); // of each numbered side the one that the line comes to next; -1 for none, as every call leaves it

/**
 * Loops around a padded mask.
 * @param mask (h, w) bytes with a rim of zeros
 * @param far optional numbers on the corners' raster (h, w): corner (i, j) is the one that pixels (i, j) and (i - 1, j - 1) share
 * @returns {loops: [[y, x, y, x, …]], far: [[y0, x0, y1, x1, number], …]} in pixels of the padded mask
 */
export function trace(mask, h, w, far = null) {
  if (following.length < 2 * h * w) following = new Int32Array(2 * h * w).fill(-1);
  const starts = [], red = [], loops = [], side = new Int32Array(4);
  for (let i = 1; i < h; i++) {
    const above = (i - 1) * w, below = i * w;
    for (let j = 1; j < w; j++) {
      const code = (mask[above + j - 1] << 3) | (mask[above + j] << 2) | (mask[below + j] << 1) | mask[below + j - 1];
      if (code === 0 || code === 15) continue;
      // A side of a corner's cell is the middle between two pixels: it has the number of the first, and of its direction.
      side[0] = 2 * (above + j - 1);
      side[1] = 2 * (above + j) + 1;
      side[2] = 2 * (below + j - 1);
      side[3] = 2 * (above + j - 1) + 1;
      for (const [enter, leave] of SEGMENTS[code]) {
        following[side[enter]] = side[leave];
        starts.push(side[enter]);
        if (far && far[below + j]) red.push([...point(side[enter], w), ...point(side[leave], w), far[below + j]]);
      }
    }
  }
  for (const start of starts) {
    if (following[start] < 0) continue;
    const loop = [];
    for (let at = start, to = following[at]; to >= 0; at = to, to = following[at]) {
      const pixel = at >> 1, x = pixel % w, y = (pixel - x) / w;
      if (at & 1) loop.push(y + 0.5, x); else loop.push(y, x + 0.5);
      following[at] = -1;
    }
    loops.push(loop);
  }
  return { loops, far: red };
}

/** Where a numbered side lies, in pixels. Even numbers lie between a pixel and the one to its right, odd ones below it. */
function point(number, w) {
  const pixel = number >> 1, x = pixel % w, y = (pixel - x) / w;
  return number & 1 ? [y + 0.5, x] : [y, x + 0.5];
}
