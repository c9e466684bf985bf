#!/usr/bin/env node
import module from "node:module";
import v8 from "node:v8";

// Most commands are over before optimised code pays for its making (90 ms of processor time of a small plan): a
// function must have run about 15 times as long as usual before it is optimised, which long work reaches at once.
v8.setFlagsFromString("--interrupt-budget=1000000");
// Compiled code is kept between starts where Node can (22.1 and later).
module.enableCompileCache?.();
const { start } = await import("../dist/bundle/start.js");

process.exitCode = await start(process.argv.slice(2), process);
