/** What goes wrong with images, in words for the operator. */
import { codeOf, remedyOf, textOf } from "../../host/Errno.ts"
import { MachineImageError } from "../MachineImage.ts"

export const fault = (image: string, reason: string, remedy: string, cause?: unknown): MachineImageError =>
  new MachineImageError({ image, reason, remedy, ...(cause === undefined ? {} : { cause }) })

/** A failed system call at that path. */
export const failedAt = (image: string, path: string) => (cause: unknown): MachineImageError =>
  cause instanceof MachineImageError
    ? cause
    : fault(
      image,
      codeOf(cause) === "ENOSPC" ? `there is no room for it below ${path}` : `${path}: ${textOf(cause)}`,
      remedyOf(cause, path),
      cause
    )
