#!/usr/bin/env node
import module from "node:module";

// Compiled code is kept between starts where Node can (22.1 and later).
module.enableCompileCache?.();
const { start } = await import("../dist/bundle/start.js");

process.exitCode = await start(process.argv.slice(2), process);
