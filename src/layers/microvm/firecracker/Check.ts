/** What `stoker doctor` says of Firecracker on this host. Nothing of it proves that a machine boots: a probe's machine does. */
import { Effect } from "effect"
import { accessSync, constants, readFileSync, statSync } from "node:fs"
import { parseMounts } from "../../cgroup/Mounts.ts"
import { textOf } from "../../host/Errno.ts"
import type { Check } from "../../sandbox/Sandbox.ts"
import * as Advisories from "./Advisories.ts"
import * as Programs from "./Programs.ts"

const checkProgram = (program: Advisories.Program, env: Programs.Environment) =>
  Effect.map(Effect.result(Programs.look(program, env)), (found): Check =>
    found._tag === "Success"
      ? {
        name: program,
        status: "ok",
        detail: `${found.success.path} ${found.success.version.join(".")}${
          Advisories.remarks(program, found.success.version)
        }`
      }
      : { name: program, status: "missing", detail: found.failure.reason, remedy: found.failure.remedy })

/** `file` is /dev/kvm. */
export const checkKvm = (file: string): Check => {
  try {
    if (!statSync(file).isCharacterDevice()) throw new Error(`${file} is no device`)
    accessSync(file, constants.R_OK | constants.W_OK)
    return {
      name: "kvm",
      status: "ok",
      detail: `${file} can be opened, which is no proof: only a machine that boots is`
    }
  } catch (cause) {
    return {
      name: "kvm",
      status: "missing",
      detail: textOf(cause),
      remedy:
        "Load the module (`modprobe kvm_intel` or `kvm_amd`), switch virtualisation on in the firmware, or nested virtualisation for this VM; without it use driver qemu with accelerator tcg"
    }
  }
}

/** The jailer makes devices and runs a program in the machine's folder: the file system there must allow both. */
export const checkFileSystem = (mountinfo: string, folder: string): Check => {
  const [best] = mountinfo.split("\n").flatMap((line) => {
    const [, , , , point = "", options = ""] = line.split(" ")
    return point !== "" && (folder === point || point === "/" || folder.startsWith(`${point}/`))
      ? [{ point, options: options.split(",") }]
      : []
  }).toReversed().toSorted((a, b) => b.point.length - a.point.length)
  const bad = best?.options.filter((option) => option === "nodev" || option === "noexec") ?? []
  return bad.length === 0
    ? { name: "jail", status: "ok", detail: `machines have their jails in ${folder}` }
    : {
      name: "jail",
      status: "missing",
      detail: `${folder} lies on a file system that is mounted ${bad.join(" and ")}`,
      remedy: `Choose another state directory, or \`mount -o remount,${
        bad.map((option) => option.slice(2)).join(",")
      } ${best?.point ?? ""}\``
    }
}

/** A version 1 hierarchy makes the loading of snapshots slow, says Firecracker; limits are held on both. */
export const checkCgroups = (mountinfo: string): Check =>
  parseMounts(mountinfo).some(({ version }) => version === "v1")
    ? {
      name: "cgroups",
      status: "warning",
      detail: "this host has cgroups of version 1: snapshots are restored slower",
      remedy: "Boot with systemd.unified_cgroup_hierarchy=1"
    }
    : { name: "cgroups", status: "ok", detail: "version 2" }

const checkRoot = (uid: number): Check =>
  uid === 0
    ? { name: "user", status: "ok", detail: "root, as the jailer needs it; machines have users of their own" }
    : { name: "user", status: "missing", detail: `user ${uid}`, remedy: "Run the worker as root: the jailer needs it" }

export const check = (env: Programs.Environment, stateDirectory: string) =>
  Effect.gen(function*() {
    const mountinfo = readFileSync("/proc/self/mountinfo", "utf8")
    return [
      yield* checkProgram("firecracker", env),
      yield* checkProgram("jailer", env),
      checkRoot(process.getuid?.() ?? -1),
      checkKvm("/dev/kvm"),
      checkCgroups(mountinfo),
      checkFileSystem(mountinfo, stateDirectory)
    ]
  })
