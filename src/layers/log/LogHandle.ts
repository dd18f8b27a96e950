/** An open file of a log. The one place where its bytes pass between Effect and node:fs. */
import { Data, Effect } from "effect"
import * as fs from "node:fs"
import { remedyOf, textOf } from "../host/Errno.ts"
import { LogError } from "./Log.ts"

/** The file was closed, to keep few open, while somebody still had it in hand: open it again. */
export class LogHandleClosed extends Data.TaggedError("LogHandleClosed") {}

/** What an open log's file costs: a descriptor. `close` waits for those who `use` it. */
export class LogHandle {
  readonly path: string
  private readonly descriptor: number
  private users = 0
  private closing = false

  constructor(path: string, descriptor: number) {
    this.path = path
    this.descriptor = descriptor
  }

  /** Keeps the descriptor open while `effect` runs. */
  use<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | LogHandleClosed, R> {
    return Effect.acquireUseRelease(
      Effect.suspend(() => {
        if (this.closing) return Effect.fail(new LogHandleClosed())
        this.users++
        return Effect.void
      }),
      () => effect,
      () =>
        Effect.sync(() => {
          this.users--
          if (this.closing) this.closeUnused()
        })
    )
  }

  close(): void {
    if (this.closing) return
    this.closing = true
    this.closeUnused()
  }

  private closeUnused(): void {
    // Nothing was promised to be on the disk, so an error of close(2) says nothing of interest.
    if (this.users === 0) fs.close(this.descriptor, () => undefined)
  }

  /** Exactly `length` bytes: whoever asks knows that they are there. */
  read(position: number, length: number): Effect.Effect<Buffer, LogError> {
    // Not to be interrupted: the descriptor's number could mean another file before the kernel is done.
    return Effect.uninterruptible(Effect.callback<Buffer, LogError>((resume) => {
      const buffer = Buffer.allocUnsafeSlow(length)
      const readFrom = (got: number): void =>
        fs.read(this.descriptor, buffer, got, length - got, position + got, (cause, count) => {
          if (cause !== null) resume(Effect.fail(failed("read", this.path, cause)))
          else if (got + count === length) resume(Effect.succeed(buffer))
          else if (count > 0) readFrom(got + count)
          else resume(Effect.fail(truncated(this.path)))
        })
      readFrom(0)
    }))
  }

  /** All of `buffers` at the file's `position`, or an error; then part of it may be there. */
  write(buffers: ReadonlyArray<Uint8Array>, position: number): Effect.Effect<number, LogError> {
    return Effect.uninterruptible(Effect.callback<number, LogError>((resume) => {
      const writeFrom = (left: ReadonlyArray<Uint8Array>, at: number): void =>
        fs.writev(this.descriptor, left, at, (cause, count) => {
          if (cause !== null) return resume(Effect.fail(failed("append", this.path, cause)))
          const rest = without(left, count)
          // A disk that fills up takes a part first and says why only when asked for the rest.
          return rest.length === 0 ? resume(Effect.succeed(at + count - position)) : writeFrom(rest, at + count)
        })
      writeFrom(buffers, position)
    }))
  }

  /** Its size in bytes, and whether it still has its name: another attempt or the janitor takes it away. */
  stat(): Effect.Effect<{ readonly size: number; readonly isNamed: boolean }, LogError> {
    return Effect.uninterruptible(Effect.callback((resume) => {
      fs.fstat(this.descriptor, (cause, { nlink, size } = { nlink: 0, size: 0 } as fs.Stats) =>
        resume(
          cause === null ? Effect.succeed({ size, isNamed: nlink > 0 }) : Effect.fail(failed("read", this.path, cause))
        ))
    }))
  }
}

/** Opens for reading (`r`) or makes a file that must not exist (`wx+`), which only its owner can read. */
export const openHandle = (
  path: string,
  flags: "r" | "wx+",
  operation: LogError["operation"]
): Effect.Effect<LogHandle, LogError> =>
  Effect.uninterruptible(Effect.callback((resume) => {
    fs.open(path, flags, 0o600, (cause, descriptor) =>
      resume(
        cause === null ? Effect.succeed(new LogHandle(path, descriptor)) : Effect.fail(failed(operation, path, cause))
      ))
  }))

const without = (buffers: ReadonlyArray<Uint8Array>, count: number): ReadonlyArray<Uint8Array> => {
  let left = count
  const index = buffers.findIndex((buffer) => {
    if (buffer.length > left) return true
    left -= buffer.length
    return false
  })
  const [cut, ...rest] = index < 0 ? [] : buffers.slice(index)
  return cut === undefined ? [] : [cut.subarray(left), ...rest]
}

/** A system call on `path` failed. */
export const failed = (operation: LogError["operation"], path: string, cause: unknown): LogError =>
  new LogError({ operation, reason: `${path}: ${textOf(cause)}`, remedy: remedyOf(cause, path), cause })

const truncated = (path: string): LogError =>
  new LogError({
    operation: "read",
    reason: `${path} is shorter than it was`,
    remedy: "Find out what cuts files below the state directory: only Stoker may write there"
  })
