// Lines of a terminal as an SVG image: one <text> per line, cells at fixed places, the 16 colours of a dark terminal.

const CELL = { width: 8.4, height: 18 };
const FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
const INK = "#d8dee9";
const PAPER = "#1b1f27";
const COLORS = ["#3b4252", "#e5484d", "#7cc47f", "#e6c15a", "#6ea8fe", "#c792ea", "#63c5d1", "#d8dee9"];
const BRIGHT = ["#69738a", "#ff6369", "#98dc9b", "#ffd866", "#8fbcff", "#dbb2ff", "#88e1ec", "#ffffff"];
const PAD = 14;

/** `lines` are arrays of `{ text, fg?, bg?, bold?, dim?, inverse? }`; colours are numbers of the 16. */
export function svgOf(lines, columns) {
  const width = Math.ceil(columns * CELL.width + 2 * PAD);
  const height = Math.ceil(lines.length * CELL.height + 2 * PAD);
  const body = lines.flatMap((runs, y) => drawLine(runs, y));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="${FONT}" font-size="14">`,
    `<rect width="${width}" height="${height}" rx="8" fill="${PAPER}"/>`,
    ...body,
    "</svg>",
    "",
  ].join("\n");
}

function drawLine(runs, y) {
  const top = PAD + y * CELL.height;
  let column = 0;
  const boxes = [];
  const texts = [];
  for (const run of runs) {
    const cells = Array.from(run.text).length;
    const { ink, paper } = colorsOf(run);
    const x = PAD + column * CELL.width;
    if (paper !== PAPER)
      boxes.push(
        `<rect x="${x.toFixed(1)}" y="${top}" width="${(cells * CELL.width).toFixed(1)}" height="${CELL.height}" fill="${paper}"/>`,
      );
    const shown = run.text.trimEnd();
    if (shown.trim() !== "") {
      const lead = shown.length - shown.trimStart().length;
      const text = shown.trimStart();
      texts.push(
        `<text xml:space="preserve" x="${(x + lead * CELL.width).toFixed(1)}" y="${top + 13}" textLength="${(Array.from(text).length * CELL.width).toFixed(1)}" lengthAdjust="spacingAndGlyphs" fill="${ink}"${run.bold === true ? ' font-weight="bold"' : ""}${run.dim === true ? ' opacity="0.62"' : ""}>${escaped(text)}</text>`,
      );
    }
    column += cells;
  }
  return [...boxes, ...texts];
}

function colorsOf(run) {
  const ink = run.fg === undefined ? INK : colorOf(run.fg);
  const paper = run.bg === undefined ? PAPER : colorOf(run.bg);
  return run.inverse === true ? { ink: paper, paper: ink } : { ink, paper };
}

function colorOf(n) {
  return COLORS[n] ?? BRIGHT[n - 8] ?? INK;
}

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
