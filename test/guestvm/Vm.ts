/**
 * A machine of its own for tests that need one: QEMU without hardware virtualisation, Debian's cloud kernel, cgroup v2
 * alone. Its root is this host's file system, shared read-only, under an overlay in the machine's memory: what the
 * machine writes is gone with it. It has no network card. Nothing outlives the process that asked for it.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { delimiter, join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { initramfs } from "../../src/layers/microvm/Cpio.ts"
import { projectRoot } from "../support/Tree.ts"

/** What lies between runs, and what a run makes for itself. */
const place = join(projectRoot, "build", "guestvm")
const kernel = join(place, "kernel")
const qemu = "qemu-system-x86_64"

/** Programs are emulated, which takes 5 to 15 times as long, on a machine that may be busy itself. */
export const slowness = 30

export interface Job {
  /** A program by its path, and its arguments; it runs in the checkout, as root. */
  readonly command: ReadonlyArray<string>
  readonly env?: Readonly<Record<string, string>>
  /** The machine is ended then, whatever it does. */
  readonly timeoutMs: number
  /** What the command writes, both streams in one. */
  readonly onOutput: (chunk: Buffer) => void
}

export interface Ended {
  /** The command's exit code; undefined if the machine ended before it did. */
  readonly code: number | undefined
  /** What the command left in STOKER_TEST_SUMMARY, and in STOKER_TEST_REPORT. */
  readonly summary: string
  readonly report: string
  /** The kernel's messages, and QEMU's own. */
  readonly log: string
  readonly timedOut: boolean
}

const onPath = (program: string) =>
  (process.env["PATH"] ?? "").split(delimiter).map((folder) => join(folder, program)).find((file) => existsSync(file))

const virtiofsd = () => ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"].find((file) => existsSync(file))

/** Why no such machine can be had here; undefined if it can. */
export const lacking = (): string | undefined => {
  if (process.env["STOKER_GUEST_VM"] !== undefined) return "this is the guest VM already"
  if (process.platform !== "linux" || process.arch !== "x64") return "made for Linux on x86_64 only"
  if (process.getuid?.() !== 0) return "sharing the root file system needs root"
  for (const program of [qemu, "setpriv", "unshare", "mke2fs"]) {
    if (onPath(program) === undefined) return `no ${program}: scripts/setup test could not install it`
  }
  if (virtiofsd() === undefined) return "no virtiofsd: it comes with QEMU in Debian 12 (qemu-system-common)"
  if (!existsSync(join(kernel, "vmlinuz"))) return "no kernel: scripts/guest-kernel says why"
  return undefined
}

/** The kernel's package with its version, and QEMU's version. */
export const versions = () => ({
  kernel: readFileSync(join(kernel, "package"), "utf8").trim(),
  qemu: /version (.*)/.exec(execFileSync(qemu, ["--version"], { encoding: "utf8" }))?.[1] ?? "unknown"
})

/** The first process, built when its source is newer. */
const init = (): Buffer => {
  const source = join(import.meta.dirname, "init.c")
  const binary = join(place, "init")
  if (!existsSync(binary) || statSync(binary).mtimeMs < statSync(source).mtimeMs) {
    const fresh = `${binary}.${process.pid}`
    execFileSync("cc", ["-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", fresh, source], {
      stdio: ["ignore", "ignore", "inherit"]
    })
    execFileSync("mv", ["-f", fresh, binary])
  }
  return readFileSync(binary)
}

const archive = ({ command, env }: Job): Buffer => {
  const variables = {
    PATH: [join(projectRoot, "node_modules", ".bin"), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
      .join(delimiter),
    HOME: "/root",
    LANG: "C.UTF-8",
    CI: "1",
    NO_COLOR: "1",
    STOKER_GUEST_VM: "1",
    STOKER_TEST_SLOWNESS: `${slowness}`,
    STOKER_TEST_DISK: "/mnt/disk",
    STOKER_TEST_SUMMARY: "/run/guest/summary",
    STOKER_TEST_REPORT: "/run/guest/report",
    ...env
  }
  const lines = [projectRoot, ...Object.entries(variables).map(([name, value]) => `${name}=${value}`), "", ...command]
  const modules = readFileSync(join(kernel, "modules.list"), "utf8")
  return initramfs([
    { name: "init", bytes: init() },
    { name: "modules.list", bytes: Buffer.from(modules) },
    ...modules.split("\n").filter((name) => name !== "")
      .map((name) => ({ name, bytes: readFileSync(join(kernel, name)) })),
    { name: "job", bytes: Buffer.from(`${lines.join("\0")}\0`) }
  ])
}

/** What killed runs left: their folders are named for their process. */
const tidy = () => {
  for (const name of readdirSync(place)) {
    const pid = /^run-(\d+)-/.exec(name)?.[1]
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmSync(join(place, name), { recursive: true, force: true })
  }
}

/** Killed with us by the kernel, should we have no time to do it. */
const bound = (folder: string, command: ReadonlyArray<string>, say: (text: Buffer) => void) => {
  const child = spawn("setpriv", ["--pdeathsig", "KILL", ...command], {
    cwd: folder,
    stdio: ["pipe", "pipe", "pipe"] // QEMU's input stays open: at its end the output's port would be closed too
  })
  child.stderr.on("data", say)
  const ended = new Promise<void>((resolve) => {
    child.on("error", (error) => {
      say(Buffer.from(`${command[0]}: ${error.message}\n`))
      resolve()
    })
    child.on("close", () => resolve())
  })
  return { child, ended }
}

/**
 * The root file system without what is mounted on it, but with the mounts tests need, and with a copy of the checkout: a
 * file that changes during a run would be torn, for the machine believes that nothing does. Read-only for virtiofsd too.
 */
const shareScript = `
root=$1 daemon=$2 checkout=$3
shift 3
share() { mount --bind "$1" "$root$2" && mount -o remount,bind,ro "$root$2"; }
share / "" || exit 1
for path in "$@"; do share "$path" "$path" || exit 1; done
share checkout "$checkout" && share "$checkout/node_modules" "$checkout/node_modules" || exit 1
# Its lock goes by the socket's name, which is the same for each machine.
mkdir -p /run/virtiofsd
mount -t tmpfs stoker /run/virtiofsd
exec "$daemon" --socket-path=files.sock -o source="$root" -o cache=always -o no_readdirplus -o sandbox=namespace -o log_level=err`

/** Of what tests need, what does not lie on the root file system itself. */
const elsewhere = () => {
  const device = statSync("/").dev
  return [...new Set([projectRoot, realpathSync(join(projectRoot, "node_modules")), "/usr", "/etc", "/var"])]
    .filter((path) => existsSync(path) && statSync(path).dev !== device)
}

const copyCheckout = (target: string) => {
  mkdirSync(join(target, "node_modules"), { recursive: true })
  const names = readdirSync(projectRoot).filter((name) => ![".git", "build", "node_modules"].includes(name))
  for (const name of [...names, "build/native"]) {
    cpSync(join(projectRoot, name), join(target, name), { recursive: true, preserveTimestamps: true })
  }
}

/** Two cores, so that what waits for a busy program still runs. */
const machine = `
-M q35,memory-backend=memory
-bios /usr/share/qemu/qboot.rom
-accel tcg,thread=multi,tb-size=256
-cpu max
-smp 2
-m 2048M
-object memory-backend-memfd,id=memory,size=2048M,share=on
-nodefaults
-no-user-config
-nographic
-no-reboot
-kernel ../kernel/vmlinuz
-initrd initramfs
-append console=ttyS0 loglevel=4 reboot=t panic=-1 mitigations=off random.trust_cpu=on
-serial file:kernel.log
-device virtio-serial-pci
-chardev stdio,id=output,signal=off
-device virtserialport,chardev=output,nr=1
-chardev file,id=result,path=result
-device virtserialport,chardev=result,nr=2
-chardev file,id=report,path=report
-device virtserialport,chardev=report,nr=3
-chardev socket,id=files,path=files.sock
-device vhost-user-fs-pci,chardev=files,tag=host,queue-size=1024
-drive id=disk,file=disk,format=raw,if=none,cache=unsafe
-device virtio-blk-pci,drive=disk
`.trim().split("\n").flatMap((line) => {
  const end = line.indexOf(" ")
  return end < 0 ? [line] : [line.slice(0, end), line.slice(end + 1)]
})

const text = (file: string) => existsSync(file) ? readFileSync(file, "utf8") : ""

/** Boots the machine, runs the job, ends it. Throws if it cannot even be started. */
export const boot = async (job: Job): Promise<Ended> => {
  const missing = lacking()
  if (missing !== undefined) throw new Error(`no guest VM: ${missing}`)
  mkdirSync(place, { recursive: true })
  tidy()
  const folder = mkdtempSync(join(place, `run-${process.pid}-`))
  const children: Array<ChildProcess> = []
  try {
    const file = (name: string) => join(folder, name)
    let said = ""
    const say = (chunk: Buffer) => {
      said += chunk.toString()
    }
    writeFileSync(file("initramfs"), archive(job))
    writeFileSync(file("disk"), "")
    execFileSync("mke2fs", ["-q", "-t", "ext4", "-F", "-E", "lazy_itable_init=1,nodiscard", file("disk"), "512M"])
    mkdirSync(file("root"))

    const share = ["unshare", "--mount", "--propagation", "private", "sh", "-c", shareScript, "sh"]
    copyCheckout(file("checkout"))
    const files = bound(folder, [...share, file("root"), virtiofsd() ?? "", projectRoot, ...elsewhere()], say)
    children.push(files.child)
    let filesGone = false
    void files.ended.then(() => {
      filesGone = true
    })
    while (!existsSync(file("files.sock"))) {
      if (filesGone) throw new Error(`no guest VM: the root file system cannot be shared: ${said}`)
      await sleep(10)
    }

    const vm = bound(folder, [qemu, ...machine], say)
    children.push(vm.child)
    vm.child.stdout.on("data", job.onOutput)
    let timedOut = false
    const deadline = setTimeout(() => {
      timedOut = true
      vm.child.kill("SIGKILL")
    }, job.timeoutMs)
    await vm.ended
    clearTimeout(deadline)

    const result = /^exit (\d+)\n(?:([^]*)\n)?end\n$/.exec(text(file("result")))
    return {
      code: result === null ? undefined : Number(result[1]),
      summary: result?.[2]?.trim() ?? "",
      report: text(file("report")),
      log: text(file("kernel.log")) + said,
      timedOut
    }
  } finally {
    for (const child of children) child.kill("SIGKILL")
    rmSync(folder, { recursive: true, force: true })
  }
}
