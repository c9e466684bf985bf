// Bundles what tsc emitted into a few files that start fast: `--version` must not pay for a database driver.
// dist/ stays as it is, for use as a library and for the scripts that run in children of their own.
import { readFile, rm } from "node:fs/promises";
import { dirname, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = dirname(fileURLToPath(import.meta.url));
const dist = resolve(root, "dist");
const out = resolve(dist, "bundle");

/** A module's own address is that of its file in dist/, wherever the bundle puts its code. */
const ownAddress = {
  name: "own-address",
  setup(bundler) {
    bundler.onLoad({ filter: /\/dist\/.*\.js$/ }, async ({ path }) => {
      const code = await readFile(path, "utf8");
      if (!code.includes("import.meta.url")) return undefined;
      const there = JSON.stringify(relative(out, path).replaceAll("\\", "/"));
      return { contents: code.replaceAll("import.meta.url", `new URL(${there}, import.meta.url).href`), loader: "js" };
    });
  },
};

// Chunks carry digests in their names: old ones would only pile up.
await rm(out, { recursive: true, force: true });

await build({
  entryPoints: [resolve(dist, "cli/main.js")],
  outdir: out,
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "node",
  target: "node20.19",
  entryNames: "[name]",
  chunkNames: "[name]-[hash]",
  // Native drivers and what is loaded only where it is installed.
  external: ["better-sqlite3", "pg", "pg-cursor", "pg-copy-streams", "libpg-query", "esbuild"],
  banner: { js: 'import { createRequire as __createRequire } from "node:module";\nconst require = __createRequire(import.meta.url);' },
  legalComments: "linked",
  logLevel: "warning",
  plugins: [ownAddress],
});
