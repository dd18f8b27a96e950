/** A job in a sandbox that takes one source file and nothing else: compiled and run in one go, by somebody else's agent. */
import { Result } from "effect"
import { Outcome } from "../../schemas/Outcome.ts"
import type { Phase, Program, Source } from "../../schemas/Program.ts"
import type { SandboxClass } from "../../schemas/SandboxClass.ts"

/** The job as such a sandbox takes it. */
export interface SourceRun {
  /** What happens is of this phase, unless it did not compile. */
  readonly phase: Phase
  readonly source: Source
}

/** Whether sandboxes of the class are such ones. */
export const isFor = ({ machine }: SandboxClass): boolean => machine?.agent === "codebench"

/** Nobody can tell when compiling ends and running begins, so both phases' time is one. */
export const of = ({ phases, source }: Program, { name }: SandboxClass): Result.Result<SourceRun, Outcome> => {
  if (source === undefined) {
    return Result.fail(Outcome.cases.Rejected.make({
      reason: `class ${name} has machines with a CodeBench agent, which takes one source file and nothing else`,
      remedy:
        "Send a code job with source alone (no files, input, arguments, variables, artefacts), or use another class."
    }))
  }
  const [first, last = first] = phases
  const phase = last === first ? first : {
    ...last,
    limits: {
      ...last.limits,
      wallMs: first.limits.wallMs + last.limits.wallMs,
      cpuMs: first.limits.cpuMs + last.limits.cpuMs
    }
  }
  return Result.succeed({ phase, source })
}
