/** Every transcript of this folder, run again whole. `UPDATE_TRANSCRIPTS=1` writes what is printed now; review the difference. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "@jest/globals";
import { BIN, makeProject } from "../support/project.js";
import { parseTranscript, play, transcriptText } from "../support/transcript.js";

const FOLDER = resolve(import.meta.dirname, "../../../test/cli");

const files = readdirSync(FOLDER).filter((f) => f.endsWith(".txt"));

test.each(files)("%s", (file) => {
  const path = join(FOLDER, file);
  const told = parseTranscript(readFileSync(path, "utf8"));
  const project = makeProject({ people: ["dana", "ravi"], journal: "delete" });
  try {
    const played = transcriptText(play(told, project, BIN));
    if (process.env["UPDATE_TRANSCRIPTS"] === "1") writeFileSync(path, played);
    else expect(played).toBe(transcriptText(told));
  } finally {
    project.close();
  }
});
