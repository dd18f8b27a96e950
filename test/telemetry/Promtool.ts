/** Prometheus' own checker, where somebody has installed it. */
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { projectEnv } from "../support/Run.ts"

export const promtool = (args: ReadonlyArray<string>, input = "") => {
  const { error, status, stderr, stdout } = spawnSync("promtool", args, { env: projectEnv, input, encoding: "utf8" })
  return { isThere: error === undefined, code: status, said: `${stdout}${stderr}` }
}

/** For the names of tests: nobody shall wonder why one did nothing. */
export const isThere = promtool(["--version"]).isThere

/** A file of rules that nobody keeps. */
export const checkedFile = (rules: string) => {
  const folder = mkdtempSync(join(tmpdir(), "stoker-promtool-"))
  try {
    const file = join(folder, "rules.yml")
    writeFileSync(file, rules)
    return promtool(["check", "rules", file])
  } finally {
    rmSync(folder, { recursive: true })
  }
}
