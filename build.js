// Bundles what tsc emitted into a few files that start fast: `--version` must not pay for a database driver.
// dist/ stays as it is, for use as a library and for the scripts that run in children of their own.
import { readFile, rm } from "node:fs/promises";
import { dirname, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = dirname(fileURLToPath(import.meta.url));
// Another output folder of tsc may be named, for a build beside the one in use.
const dist = resolve(root, process.argv[2] ?? "dist");
const out = resolve(dist, "bundle");

/** A module's own address is that of its file in dist/, wherever the bundle puts its code. */
const ownAddress = {
  name: "own-address",
  setup(bundler) {
    bundler.onLoad({ filter: /\.js$/ }, async ({ path }) => {
      if (!path.startsWith(dist + sep)) return undefined;
      const code = await readFile(path, "utf8");
      if (!code.includes("import.meta.url")) return undefined;
      const there = JSON.stringify(relative(out, path).replaceAll("\\", "/"));
      return {
        contents: code.replaceAll("import.meta.url", `new URL(${there}, import.meta.url).href`),
        loader: "js",
      };
    });
  },
};

/**
 * Libraries that do at load what only some commands need: 28 ms of ICU for text beyond ASCII, and the error
 * messages of fifty languages. A replacement that no longer matches fails the build.
 */
const lighter = {
  name: "lighter",
  setup(bundler) {
    bundler.onLoad({ filter: /\/string-width\/index\.js$/ }, async ({ path }) => {
      const code = await readFile(path, "utf8");
      const eager = "const segmenter = new Intl.Segmenter();";
      const lazy =
        "let made;\nconst segmenter = { segment: (text) => (made ??= new Intl.Segmenter()).segment(text) };";
      // Patterns with properties of characters ask ICU for their sets where they are made: 15 ms in all.
      const table = /^const (\w+Regex) = (\/.*\\p\{.*\/v);$/gm;
      if (!code.includes(eager) || code.match(table)?.length !== 3)
        return { errors: [{ text: `${path} no longer says: ${eager}, and three patterns` }] };
      const put = (_, name, pattern) =>
        `let ${name}Made;\nconst ${name} = { test: (text) => (${name}Made ??= ${pattern}).test(text), ` +
        `[Symbol.search]: (text) => text.search((${name}Made ??= ${pattern})) };`;
      const contents = code.replace(eager, lazy).replace(table, put);
      return { contents, loader: "js" };
    });
    bundler.onLoad({ filter: /\/zod\/v4\/locales\/index\.js$/ }, () => ({
      contents: 'export { default as en } from "./en.js";',
      loader: "js",
    }));
  },
};

// Chunks carry digests in their names: old ones would only pile up.
await rm(out, { recursive: true, force: true });

await build({
  entryPoints: [resolve(dist, "cli/start.js")],
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
  banner: {
    js: 'import { createRequire as __createRequire } from "node:module";\nconst require = __createRequire(import.meta.url);',
  },
  // Less to parse; names stay, for the traces of a fault of ours.
  minifyWhitespace: true,
  minifySyntax: true,
  legalComments: "linked",
  logLevel: "warning",
  plugins: [ownAddress, lighter],
});
