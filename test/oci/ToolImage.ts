/** Images that hold one static program, compiled of C. */
import { execFileSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Make from "./ImageMaker.ts"

/** The program, compiled in that folder. */
export const compiled = (folder: string, code: string): Buffer => {
  const source = join(folder, "tool.c")
  writeFileSync(source, code)
  execFileSync("cc", ["-static", "-O1", "-w", "-o", join(folder, "tool"), source])
  return readFileSync(join(folder, "tool"))
}

/** A layout at that path, whose root has the program under these names; its reference. */
export const toolImage = (
  path: string,
  content: Buffer,
  options: Omit<Make.ImageOptions, "layers">,
  names: ReadonlyArray<string> = ["tool"]
): string => {
  const layers = [Make.tar(names.map((name) => ({ name, content })))]
  Make.writeLayout(path, Make.image({ layers, ...options }))
  return `oci:${path}:latest`
}
