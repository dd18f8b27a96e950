/** The helm that scripts/helm built. */
import { existsSync, mkdirSync, readdirSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type Ended, run } from "../support/Run.ts"
import { projectRoot } from "../support/Tree.ts"

export interface Helm {
  readonly path: string
  readonly version: string
  /** With no configuration of anybody's. */
  readonly run: (args: ReadonlyArray<string>) => Promise<Ended>
}

/** `undefined`: there is none. */
export const helmOf = (): Helm | undefined => {
  const folder = join(projectRoot, "build/helm")
  const version = existsSync(folder)
    ? readdirSync(folder).find((name) => existsSync(join(folder, name, "helm")))
    : undefined
  if (version === undefined) return undefined
  const path = join(folder, version, "helm")
  return {
    path,
    version,
    run: (args) => {
      const home = join(tmpdir(), "helm-home")
      mkdirSync(home, { recursive: true })
      return run(path, args, {
        env: { ...process.env, HELM_CACHE_HOME: home, HELM_CONFIG_HOME: home, HELM_DATA_HOME: home }
      })
    }
  }
}
