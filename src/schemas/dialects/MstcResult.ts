/**
 * What the MSTC worker's clients are answered: `{"result": text}` as ever, and beside it what a program can read. The old
 * worker said "complete" whatever had happened; here only success is called so.
 */
import { describe, isSuccess, type Outcome } from "../Outcome.ts"
import type { MstcForm, MstcInvalid } from "./Mstc.ts"

/** The answer's body. */
export interface MstcResult {
  readonly result: string
  readonly status: "complete" | "failed" | "invalid"
  /** NAME-ID, as the text says it. */
  readonly job?: string
  readonly outcome?: Outcome["_tag"]
  readonly exitCode?: number
  readonly error?: string
}

/** What people and object names call the job. */
export const jobNameOf = (name: string, id: string): string => `${name}-${id}`

/** An ended job, with its output for those who asked by address. */
export const ended = (
  { form, id, name }: { readonly form: MstcForm; readonly name: string; readonly id: string },
  outcome: Outcome,
  output: string
): MstcResult => {
  const job = jobNameOf(name, id)
  const what = { job, outcome: outcome._tag, ...(outcome._tag === "Exited" ? { exitCode: outcome.code } : {}) }
  if (isSuccess(outcome)) {
    return { result: form === "urls" ? output : `Job ${job} complete.`, status: "complete", ...what }
  }
  const error = describe(outcome)
  const said = `Job ${job} ${error}`
  return { result: form === "urls" && output !== "" ? `${output}\n${said}` : said, status: "failed", ...what, error }
}

/** A message that was no request; the body is told back, as ever, but not more of it than somebody reads. */
export const invalid = ({ reason, remedy }: MstcInvalid, body: Uint8Array): MstcResult => ({
  result: `Invalid request ${reason}: ${new TextDecoder().decode(body.subarray(0, 2048))}`,
  status: "invalid",
  error: `${reason}. ${remedy}`
})
