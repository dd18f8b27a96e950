/** A folder of files that lives as long as a test: `using tree = Tree.of({ "src/a.ts": "..." })`. */
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"

/** The root of the project's checkout. */
export const projectRoot = join(import.meta.dirname, "..", "..")

export class Tree {
  readonly path: string

  private constructor(path: string) {
    this.path = path
  }

  /** Paths and their text. Files that begin with #! can be run. */
  static of(files: Readonly<Record<string, string>>): Tree {
    const tree = new Tree(mkdtempSync(join(tmpdir(), "stoker-tree-")))
    for (const [name, text] of Object.entries(files)) tree.write(name, text)
    return tree
  }

  write(name: string, text: string): void {
    const file = join(this.path, name)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, text, { mode: text.startsWith("#!") ? 0o755 : 0o644 })
  }

  remove(name: string): void {
    rmSync(join(this.path, name))
  }

  /** Copies files and folders of the project to the same place here, times and modes kept. */
  copy(...names: ReadonlyArray<string>): this {
    for (const name of names) {
      cpSync(join(projectRoot, name), join(this.path, name), { recursive: true, preserveTimestamps: true })
    }
    return this
  }

  /** Makes the project's packages importable here. */
  linkPackages(): this {
    symlinkSync(join(projectRoot, "node_modules"), join(this.path, "node_modules"))
    return this
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}
