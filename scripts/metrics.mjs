#!/usr/bin/env node
// The page of all metrics, made from the one list in the source. usage: scripts/metrics.mjs > infra/METRICS.md
import { fileURLToPath } from "node:url"
import { boundaries } from "../src/layers/telemetry/Instrument.ts"
import { definitions } from "../src/layers/telemetry/Metrics.ts"

const row = ({ help, labels, name, type, unit }) =>
  `| \`${name}\` | ${type} | ${unit} | ${labels.map((label) => `\`${label}\``).join(", ")} | ${help} |`

export const page = () =>
  [
    "# Metrics",
    "",
    "Every metric of a worker. Made by `scripts/metrics.mjs` from `src/layers/telemetry/Metrics.ts`; a test fails while the",
    "two differ, or while the dashboard or an alert rule names a metric that is not here.",
    "",
    "Labels come from bounded sets: doors, configured functions and classes, outcomes, operations. A job's id or owner is never",
    "one; a function or class that is not configured is `unknown`, and no metric has more than 500 series.",
    "",
    `Histograms have buckets up to ${boundaries.join(", ")} seconds.`,
    "",
    "| metric | type | unit | labels | meaning |",
    "|---|---|---|---|---|",
    ...definitions.map(row),
    ""
  ].join("\n")

if (process.argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(page())
