/** The words between an executor and a function host: one invocation on its standard input, and one mark before it. */
import type { FunctionName } from "../schemas/Ids.ts"

/** What one function host is asked, once. */
export interface HostInvocation {
  readonly function: FunctionName
  /** Plain JSON: the host decodes them with the function's Schema. */
  readonly args: unknown
  readonly id: string
  readonly owner: string
  /** 1 for the first try. */
  readonly attempt: number
}

/** A host that waits says this on stdout when it is ready for its invocation. */
export const readyMark = "\u0000stoker: ready\n"

/** All of its standard input. */
export const encodeInvocation = (invocation: HostInvocation): Uint8Array => Buffer.from(JSON.stringify(invocation))
