/**
 * Somebody behind a machine's tap: a network namespace with the guest's card, and a program that carries its frames. Whoever
 * runs in it is the guest's root, as the job of a machine that was broken would be.
 */
import { Schema } from "effect"
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { promisify } from "node:util"
import { GUEST_ADDRESS, HOST_ADDRESS, MAC, TAP, TAP_PREFIX } from "../../src/layers/microvm/Vmm.ts"
import type { SandboxId } from "../../src/schemas/Ids.ts"
import type { Probe } from "./World.ts"

const answers = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Array(Schema.String)))
const run = promisify(execFile)

export const CARD = "eth0"
const FAR = "far0"

export class TapGuest {
  private readonly children: Array<ChildProcess> = []
  private namespace = ""

  /** Behind the tap of this row's namespace. */
  static async make(id: SandboxId): Promise<TapGuest> {
    const guest = new TapGuest()
    const holder = await guest.start("unshare", "--net", "sh", "-c", "echo up; exec sleep 100000")
    guest.namespace = `/proc/${holder}/ns/net`
    guest.ip("link", "set", "lo", "up")
    guest.ip("link", "add", CARD, "address", MAC, "type", "veth", "peer", "name", FAR)
    // The far end is a wire and says nothing itself.
    guest.sh("sh", "-c", `echo 1 >/proc/sys/net/ipv6/conf/${FAR}/disable_ipv6`)
    for (const device of [FAR, CARD]) guest.ip("link", "set", device, "up")
    guest.ip("addr", "add", `${GUEST_ADDRESS}/${TAP_PREFIX}`, "dev", CARD)
    guest.ip("route", "add", "default", "via", HOST_ADDRESS)
    const carrier = join(import.meta.dirname, "tapguest.py")
    await guest.start("nsenter", `--net=/run/netns/stoker-${id}`, "python3", carrier, TAP, guest.namespace, FAR)
    return guest
  }

  /** A listener of the host's in the row's namespace, on every address there. Gives what ends it. */
  static async listen(id: SandboxId, port: number): Promise<() => Promise<void>> {
    const guest = new TapGuest()
    const source = join(import.meta.dirname, "listen.py")
    const plan = JSON.stringify([["tcp", "0.0.0.0", port]])
    await guest.start("nsenter", `--net=/run/netns/stoker-${id}`, "python3", source, plan)
    return () => guest.end()
  }

  private async start(...argv: ReadonlyArray<string>): Promise<number> {
    const child = spawn("setpriv", ["--pdeathsig", "KILL", ...argv], { stdio: ["ignore", "pipe", "inherit"] })
    this.children.push(child)
    await once(child.stdout, "data")
    return child.pid ?? 0
  }

  sh(...argv: ReadonlyArray<string>): string {
    return execFileSync("nsenter", [`--net=${this.namespace}`, ...argv], { encoding: "utf8" })
  }

  ip(...args: ReadonlyArray<string>): string {
    return this.sh("ip", ...args)
  }

  /** What came of each attempt, made by the guest. */
  async probe(...probes: ReadonlyArray<Probe>): Promise<ReadonlyArray<string>> {
    const source = join(import.meta.dirname, "probe.py")
    const { stdout } = await run("nsenter", [`--net=${this.namespace}`, "python3", source, JSON.stringify(probes)])
    return answers(stdout)
  }

  /** A program of the guest's that has said something. */
  async serve(...argv: ReadonlyArray<string>): Promise<void> {
    await this.start("nsenter", `--net=${this.namespace}`, ...argv)
  }

  /** One that has said something, and ends with its standard input. Gives what ends it. */
  async hold(...argv: ReadonlyArray<string>): Promise<() => Promise<void>> {
    const child = spawn("setpriv", ["--pdeathsig", "KILL", "nsenter", `--net=${this.namespace}`, ...argv], {
      stdio: ["pipe", "pipe", "inherit"]
    })
    this.children.push(child)
    await once(child.stdout, "data")
    return async () => {
      const gone = once(child, "exit")
      child.stdin.end()
      await gone
    }
  }

  async end(): Promise<void> {
    for (const child of this.children.toReversed()) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      const gone = once(child, "exit")
      child.kill("SIGKILL")
      await gone
    }
  }
}
