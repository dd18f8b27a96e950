/** Brings the files back that a job asked for, one after the other, once nothing of it runs any more. */
import { Effect } from "effect"
import { standardConfig } from "../../schemas/WorkerConfig.ts"
import type { Sandbox, SandboxRefused } from "../sandbox/Sandbox.ts"
import type { Assignment, RunEvent } from "./Executor.ts"

const ENOENT = 2
const ENXIO = 6
const EACCES = 13
const ENOTDIR = 20
const EISDIR = 21
const EINVAL = 22
const EFBIG = 27
const ELOOP = 40

/** Why a file that was asked for is not brought back. */
export const whyMissing = ({ errno, reason }: SandboxRefused): string => {
  switch (errno) {
    case ENOENT:
    case ENOTDIR:
      return "there is no such file"
    case EACCES:
      return "the job may not read it"
    case EISDIR:
    case EINVAL:
    case ENXIO:
      return "it is not a regular file"
    case ELOOP:
      return "it is a symbolic link, or lies behind one: links are not followed"
    default:
      return reason
  }
}

/**
 * Gives each artefact, or why it does not come. One at a time: memory holds no more than one job may bring back. The
 * guest resolves the names, beneath the workspace, as the job's user, without following a link.
 */
export const collect = Effect.fnUntraced(function*(
  sandbox: Sandbox,
  { artefactBytes: maximum = standardConfig.artefactBytes, program }: Assignment,
  emit: (event: RunEvent) => Effect.Effect<unknown>
) {
  let left: number = maximum
  let gone: string | undefined
  for (const path of program.artefacts) {
    if (gone !== undefined) {
      yield* emit({ _tag: "ArtefactMissing", path, reason: gone })
      continue
    }
    const got = yield* Effect.result(sandbox.get(path, left))
    if (got._tag === "Success") {
      left -= got.success.length
      yield* emit({ _tag: "Artefact", path, content: got.success })
    } else if (got.failure._tag === "SandboxRefused") {
      const reason = got.failure.errno === EFBIG
        ? `it is too large: ${got.failure.reason} (${left} left of the ${maximum} that one job may bring back)`
        : whyMissing(got.failure)
      yield* emit({ _tag: "ArtefactMissing", path, reason })
    } else {
      gone = `its sandbox is gone: ${got.failure.reason}`
      yield* emit({ _tag: "ArtefactMissing", path, reason: gone })
    }
  }
})
