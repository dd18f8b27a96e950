/** No sandbox has anything of another one, of the worker or of its host. */
import { Effect } from "effect"
import { baseEnv } from "../../schemas/Program.ts"
import { define, expect, same } from "../Case.ts"
import { provision, run } from "../Places.ts"
import { slowly } from "../Runs.ts"

/** What is inside: files of the workspace, variables, open descriptors. */
const inside = "ls -A; echo --; env; echo --; ls /proc/self/fd"

const lines = (text: string | undefined) => (text ?? "").split("\n").filter((line) => line !== "").toSorted()

export const isolation = [
  define(
    "a fresh sandbox each time: nothing of the one before it is in its workspace",
    [],
    Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const sandbox = yield* provision
        yield* run(sandbox, "touch file .hidden; mkdir folder; (setsid sleep 1000 &); echo x > \"$HOME/home\"")
      }))
      yield* Effect.scoped(Effect.gen(function*() {
        const { stdout } = yield* run(yield* provision, "ls -A; echo listed")
        yield* same("the workspace", stdout, "listed\n")
      }))
    })
  ),

  define(
    "a fresh sandbox each time: no file, process, message or shared memory of the one before it",
    ["isolation"],
    Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const sandbox = yield* provision
        yield* run(
          sandbox,
          "for d in /tmp /dev/shm /var/tmp /run; do touch $d/stoker-was-here; done 2>/dev/null; (setsid sleep 1000 &)"
        )
        yield* run(sandbox, {
          python:
            "import ctypes\nc = ctypes.CDLL(None)\nc.shmget(4711, 4096, 0o1666)\nc.msgget(4712, 0o1666)\nc.semget(4713, 1, 0o1666)"
        })
      }))
      yield* Effect.scoped(Effect.gen(function*() {
        const sandbox = yield* provision
        const { stdout } = yield* run(
          sandbox,
          "find / -name stoker-was-here -not -path '/proc/*' 2>/dev/null; grep -c . /proc/sysvipc/shm /proc/sysvipc/msg /proc/sysvipc/sem; grep -l sleep /proc/[0-9]*/comm"
        )
        // Nothing but the heads of the three tables.
        yield* same("what is found", lines(stdout), [
          "/proc/sysvipc/msg:1",
          "/proc/sysvipc/sem:1",
          "/proc/sysvipc/shm:1"
        ])
      }))
    })
  ),

  define(
    "no variable of the worker is inside, and no descriptor of anybody's",
    [],
    Effect.scoped(Effect.gen(function*() {
      const { stdout } = yield* run(yield* provision, inside, { env: { MINE: "1" } })
      const [files, variables, descriptors] = stdout.split("--\n")
      yield* same("files", lines(files), [])
      // What the shell adds itself.
      const names = lines(variables).map((line) => line.split("=")[0] ?? "").filter((name) =>
        !/^(?:PWD|OLDPWD|SHLVL|_)$/.test(name)
      )
      yield* same("variables", names.toSorted(), [...Object.keys(baseEnv), "MINE"].toSorted())
      // Its three streams, and the one that lists them.
      yield* same("descriptors", lines(descriptors), ["0", "1", "2", "3"])
    }))
  ),

  define(
    "two sandboxes do not see each other: files, processes, abstract sockets, SysV memory",
    ["isolation"],
    Effect.scoped(Effect.gen(function*() {
      const [one, other] = [yield* provision, yield* provision]
      const name = "stoker-conformance-two"
      const hide = `
import ctypes, os, socket, sys, time
open('/tmp/${name}', 'w'); open('${name}', 'w')
try: open('/dev/shm/${name}', 'w')
except OSError: pass
s = socket.socket(socket.AF_UNIX); s.bind('\\0${name}'); s.listen()
ctypes.CDLL(None).shmget(4714, 4096, 0o1666)
open('/proc/self/comm', 'w').write('stokerhidden')
print('up', flush=True)
time.sleep(1000)`
      const seek = `
import ctypes, os, socket
for path in ('/tmp/${name}', '${name}', '/dev/shm/${name}'):
    if os.path.exists(path): print(path)
try:
    socket.socket(socket.AF_UNIX).connect('\\0${name}'); print('socket')
except OSError: pass
if ctypes.CDLL(None).shmget(4714, 4096, 0) >= 0: print('shared memory')
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        if 'stokerhidden' in open(f'/proc/{pid}/comm').read(): print('process')
    except OSError: pass
print('sought')`
      let sought: string | undefined
      const seeking = run(other, { python: seek })
      const deadline = yield* slowly(30_000)
      yield* Effect.raceFirst(
        run(one, { python: hide }),
        Effect.gen(function*() {
          // Seen from within the first: it is there by then.
          yield* Effect.sleep(yield* slowly(700))
          sought = (yield* seeking).stdout
        })
      ).pipe(Effect.timeoutOption(deadline))
      yield* same("what one sees of the other", sought, "sought\n")
    }))
  ),

  define(
    "no process of the host is inside, no capability, no network but its own, and no way to more",
    ["isolation"],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      const { stdout } = yield* run(
        sandbox,
        "ls /proc | grep -c '^[0-9]'; grep -E 'Cap(Eff|Prm|Inh|Amb)' /proc/self/status; id -u"
      )
      const [processes, ...rest] = stdout.trim().split("\n")
      yield* expect("no process but its own few", Number(processes) <= 8, stdout)
      const sets = rest.slice(0, -1)
      yield* expect("no capability", sets.length > 0 && sets.every((line) => /0{16}$/.test(line)), rest)
      yield* expect("not to be root", rest.at(-1) !== "0", rest.at(-1))
      const escape = yield* run(
        sandbox,
        "touch /usr/x; touch /x; unshare -U true; mount -t tmpfs x /tmp; mknod n c 1 1; chroot / true; kill -9 1; cat /proc/1/environ"
      )
      // Where user namespaces are limited to none, the kernel says that there is no space for one.
      const refusals = lines(escape.stderr).filter((line) =>
        /denied|not permitted|read-only|superuser|no such|not found|unshare.*no space/i.test(line)
      )
      yield* same("refusals of eight attempts", [refusals.length, escape.stdout], [8, ""])
    }))
  ),

  define(
    "no network where the class has none: nothing but a loopback of its own",
    ["isolation", "loopback-only"],
    Effect.scoped(Effect.gen(function*() {
      const sandbox = yield* provision
      const { stdout } = yield* run(sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; echo listed")
      const others = lines(stdout).filter((name) => name !== "lo")
      yield* same("devices beside its loopback", others, ["listed"])
    }))
  )
]
