/**
 * Starts processes without forking the worker: one tiny process does it, asked over a socket that then becomes the new
 * process' stdio. Forking the worker itself costs its main thread milliseconds, this a tenth of one.
 */
import { Context, Effect, Layer, Option, Schedule, type Scope } from "effect"
import * as fs from "node:fs"
import { mkdir, open } from "node:fs/promises"
import { connect, type Socket } from "node:net"
import { join } from "node:path"
import * as Companion from "./Companion.ts"
import { codeOf, textOf } from "./Errno.ts"
import { Host, HostError } from "./Host.ts"
import { Native } from "./Native.ts"
import { Watchdog } from "./Watchdog.ts"

const SOCKET = "launch.sock"

/** What of a process' last words is of interest, in characters. */
const MOST_SAID = 2000

/** Where a process says why it could not be (below an instance's directory); removed with what it is named for. */
export const saidOf = (instanceDirectory: string, name: string) => join(instanceDirectory, "said", name)

/** `command` runs in `/`, without environment, as the worker's user, found by the system's default PATH. */
export interface LaunchRequest {
  /** It is in these cgroups (their `cgroup.procs`, absolute) before its first instruction, or does not run. 64 at most. */
  readonly procsFiles: ReadonlyArray<string>
  /** Program and arguments, 256 at most; none with a NUL. */
  readonly command: ReadonlyArray<string>
  /**
   * The file that the end of what it wrote on fd 2 lies in when it has ended, if it wrote anything and we had not closed
   * the stream by then; must not be there yet (`saidOf`).
   */
  readonly stderrPath: string
  /**
   * The program runs from a copy in memory that nobody can change, unless it is a script: for crun, which otherwise
   * protects itself by starting twice. False by default.
   */
  readonly sealed?: boolean
}

/** A process that was asked for. Whether it came to be shows on the stream: it speaks, or the stream closes. */
export interface LaunchedProcess {
  /** Its fd 0 and 1. Ending it is its end of file; what it still writes is read. */
  readonly stream: Socket
  /** The connection has closed: the process is gone (whoever else holds its fd 0 or 1), or we destroyed it. */
  readonly ended: Effect.Effect<void>
  /** The end of what it wrote on fd 2, or of why it did not run; "" if nothing. */
  readonly said: Effect.Effect<string>
}

export class Launcher extends Context.Service<Launcher, {
  /** Fails when the request could not be handed over. */
  readonly launch: (request: LaunchRequest) => Effect.Effect<LaunchedProcess, HostError>
  /** Ends if the launcher does, which nothing of ours causes while the worker lives. */
  readonly died: Effect.Effect<never, HostError>
}>()("stoker/layers/host/Launcher") {}

const REMEDY = "Run `stoker doctor`; without its launcher a worker can start nothing."

const failed = (operation: string, reason: string, cause?: unknown) =>
  new HostError({
    operation,
    reason,
    remedy: REMEDY,
    ...(cause === undefined ? {} : { cause })
  })

const u32 = (value: number) => {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32LE(value)
  return bytes
}

const text = (value: string) => {
  const bytes = Buffer.from(value)
  return [u32(bytes.length), bytes]
}

/** One request as bytes (native/launch/launch.h); what is beyond its limits the launcher refuses by closing. */
export const encode = ({ command, procsFiles, sealed = false, stderrPath }: LaunchRequest) => {
  const body = Buffer.concat([
    u32(procsFiles.length),
    ...procsFiles.flatMap(text),
    ...text(stderrPath),
    u32(sealed ? 1 : 0),
    u32(command.length),
    ...command.flatMap(text)
  ])
  return Buffer.concat([u32(body.length), body])
}

const readTail = async (path: string) => {
  await using file = await open(path)
  const { size } = await file.stat()
  const { buffer, bytesRead } = await file.read({
    buffer: Buffer.alloc(4 * MOST_SAID),
    position: Math.max(0, size - 4 * MOST_SAID)
  })
  return buffer.toString("utf8", 0, bytesRead).trim().slice(-MOST_SAID)
}

/** A full backlog (EAGAIN): the launcher is behind by a thousand, which it makes good within a tenth of a second. */
const patience = {
  while: (cause: unknown) => codeOf(cause) === "EAGAIN",
  schedule: Schedule.spaced("20 millis"),
  times: 100
}

const connected = (path: string) =>
  Effect.callback<Socket, unknown>((resume) => {
    // Half open: what it still says after our end is read.
    const socket = connect({ path, allowHalfOpen: true })
    socket.on("error", (cause) => resume(Effect.fail(cause))) // and stays: `close` tells of later ones
    socket.once("connect", () => resume(Effect.succeed(socket)))
    return Effect.sync(() => socket.destroy())
  }).pipe(Effect.retry(patience))

const launched = (stream: Socket, request: LaunchRequest): LaunchedProcess => {
  // All who could read are gone as well: what was not sent yet is of no use.
  stream.once("end", () => stream.destroy())
  stream.write(encode(request))
  return {
    stream,
    ended: Effect.callback<void>((resume) => {
      const done = () => resume(Effect.void)
      if (stream.closed) return done()
      stream.once("close", done)
      return Effect.sync(() => stream.off("close", done))
    }),
    said: Effect.tryPromise(() => readTail(request.stderrPath)).pipe(Effect.orElseSucceed(() => ""))
  }
}

/** An address below the folder that fits into a socket's, however deep the folder lies: the scope holds it open. */
const addressIn = (folder: string): Effect.Effect<string, HostError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: () => open(folder, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY),
      catch: (cause) => failed("start the launcher", `${folder} could not be opened: ${textOf(cause)}`, cause)
    }),
    (handle) => Effect.promise(() => handle.close()).pipe(Effect.ignore)
  ).pipe(Effect.map(({ fd }) => `/proc/self/fd/${fd}/${SOCKET}`))

const make = Effect.gen(function*() {
  const { launch } = yield* Native
  const { mountNamespace } = yield* Watchdog
  const host = yield* Host
  const folder = host.paths.instance(host.instance)
  const said = saidOf(folder, "")
  yield* Effect.tryPromise({
    try: () => mkdir(said, { mode: 0o700 }),
    catch: (cause) => failed("start the launcher", `${said} could not be made: ${textOf(cause)}`, cause)
  })
  const address = yield* addressIn(folder)
  const { died } = yield* Companion.start({
    name: "launcher",
    program: launch,
    // By its name in the folder, so that the path is never too long for a socket; it goes to / itself.
    args: ["--serve", SOCKET, ...Option.match(mountNamespace, { onNone: () => [], onSome: (path) => ["-n", path] })],
    cwd: folder,
    remedy: REMEDY
  })
  return Launcher.of({
    launch: (request) =>
      connected(address).pipe(
        Effect.map((stream) => launched(stream, request)),
        Effect.mapError((cause) =>
          failed(`launch ${request.command[0] ?? ""}`, `the launcher does not answer: ${textOf(cause)}`, cause)
        )
      ),
    died
  })
})

/** One launcher process for the worker, in the watchdog's mount namespace where there is one. */
export const layer = Layer.effect(Launcher, make)
