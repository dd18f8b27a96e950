/** A container job in a sandbox of this host: its image is the sandbox's root, if the class lets jobs bring one. */
import { Result } from "effect"
import { imageRefusal } from "../../schemas/ImagePolicy.ts"
import { Outcome } from "../../schemas/Outcome.ts"
import type { Phase } from "../../schemas/Program.ts"
import type { SandboxClass } from "../../schemas/SandboxClass.ts"
import type { Sandbox } from "../sandbox/Sandbox.ts"
import type { Assignment } from "./Executor.ts"

const rejected = (reason: string, remedy: string) => Result.fail(Outcome.cases.Rejected.make({ reason, remedy }))

/** Fields of a container that only a cluster can do something with. */
const clusters = ["secrets", "nodeSelector", "pullSecret"] as const

/** The class whose sandbox is taken for it: the job's own, but for the root where the job brings an image. */
export const placed = ({ class: own, program: { container } }: Assignment): Result.Result<SandboxClass, Outcome> => {
  if (container === undefined) return Result.succeed(own)
  if (own.driver !== "oci") {
    return rejected(
      `class ${own.name} is of driver ${own.driver}, which does not run images that jobs bring`,
      "Use a class of driver kubernetes or oci."
    )
  }
  const refusal = own.images === undefined
    ? { reason: `class ${own.name} lets no job bring an image`, remedy: "Its operator sets `images` for that." }
    : imageRefusal(own.images, container.image)
  if (refusal !== undefined) return rejected(refusal.reason, refusal.remedy)
  const unheld = clusters.find((field) => Object.keys(container[field] ?? {}).length > 0)
  if (unheld !== undefined) {
    return rejected(
      `${unheld} is a cluster's, and class ${own.name} runs its jobs on this host`,
      "Leave it out, or use a class of driver kubernetes."
    )
  }
  return Result.succeed({ ...own, root: { image: container.image } })
}

/** Each phase as it is, but for a container whose image says what is run. */
export const phaseIn = (
  { imageRun }: Sandbox,
  phase: Phase,
  { container }: Assignment["program"]
): Result.Result<Phase, Outcome> => {
  if (container === undefined || container.command !== undefined) return Result.succeed(phase)
  if (imageRun === undefined) {
    return rejected(
      `it is not known what ${container.image} runs: it was unpacked by an older worker`,
      "Send the job with a command, or remove the image from the state directory."
    )
  }
  const [program, ...others] = [...imageRun.entrypoint, ...(container.args ?? imageRun.arguments)]
  return program === undefined
    ? rejected(`${container.image} does not say what it runs`, "Send the job with a command.")
    : Result.succeed({ ...phase, argv: [program, ...others] })
}
