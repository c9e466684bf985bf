#!/usr/bin/env node
import module from "node:module";

// Compiled code is kept between starts where Node can (22.1 and later).
module.enableCompileCache?.();
const { main } = await import("../dist/bundle/main.js");

process.exitCode = await main(process.argv.slice(2), process);
