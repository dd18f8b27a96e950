import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import { ClassName } from "../../src/schemas/Ids.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import type { Root, SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import * as Make from "./ImageMaker.ts"

const state = Jobs.stateDirectory()
const files = Jobs.stateDirectory()

/** A static program: `argv[0]`'s name, its arguments, `env`, what lies where. */
const source = String.raw`
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>
extern char **environ;
int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "env")) for (char **e = environ; *e; e++) puts(*e);
  for (int i = 2; i < argc && !strcmp(argv[1], "cat"); i++) {
    char text[4096];
    FILE *f = fopen(argv[i], "r");
    if (!f) { perror(argv[i]); continue; }
    size_t n = fread(text, 1, sizeof text, f);
    fwrite(text, 1, n, stdout);
    fclose(f);
  }
  for (int i = 2; i < argc && !strcmp(argv[1], "stat"); i++) {
    struct stat s;
    if (lstat(argv[i], &s) < 0) { perror(argv[i]); continue; }
    printf("%s %o %u\n", argv[i], s.st_mode, s.st_uid);
  }
  if (argc > 1 && !strcmp(argv[1], "id")) printf("%u %u\n", getuid(), geteuid());
  if (argc > 1 && !strcmp(argv[1], "write")) { FILE *f = fopen(argv[2], "w"); if (!f) perror(argv[2]); }
  return 0;
}`

const tool = (() => {
  writeFileSync(join(files, "tool.c"), source)
  execFileSync("cc", ["-static", "-O1", "-w", "-o", join(files, "tool"), join(files, "tool.c")])
  return readFileSync(join(files, "tool"))
})()

const base: ReadonlyArray<Make.Member> = [
  { name: "opt/", type: "5" },
  { name: "opt/bin/", type: "5" },
  { name: "opt/bin/tool", content: tool }
]

const plain = (members: ReadonlyArray<Make.Member> = [], more: Partial<Make.ImageOptions> = {}) =>
  Make.image({
    layers: [Make.tar([...base, ...members])],
    env: ["PATH=/opt/bin", "COLOUR=blue", "HOME=/elsewhere"],
    ...more
  })

let made = 0
const layout = (blobs: Make.Blobs) => {
  const path = join(files, `layout${++made}`)
  Make.writeLayout(path, blobs)
  return `oci:${path}:latest`
}
const file = (bytes: Buffer) => {
  const path = join(files, `archive${++made}.tar`)
  writeFileSync(path, bytes)
  return path
}

const classOf = (root: Root, more: Partial<SandboxClass> = {}): SandboxClass => ({
  ...standardClass("oci", "oci"),
  // A class has one root: another root is another class.
  name: ClassName.make(`r${createHash("sha256").update(JSON.stringify(root)).digest("hex").slice(0, 16)}`),
  root,
  ...more
})

const run = (root: Root, argv: ReadonlyArray<string>, env: Readonly<Record<string, string>> = {}) =>
  Jobs.runIn(classOf(root), { args: { argv, env } })

const output = (root: Root, argv: ReadonlyArray<string>, env?: Readonly<Record<string, string>>) =>
  Effect.map(run(root, argv, env), (ran) => {
    assert.deepStrictEqual(ran.outcome, Outcome.cases.Exited.make({ phase: "run", code: 0 }), JSON.stringify(ran))
    return ran.stdout.toString() + ran.stderr.toString()
  })

const driver = Effect.map(Drivers, ([found]) => found ?? assert.fail("no driver"))

/** Why no sandbox of the class is made. */
const refusal = (root: Root) =>
  Effect.flatMap(
    driver,
    (oci) => oci.provision(classOf(root), { bytes: 1024 * 1024, inodes: 64 }).pipe(Effect.scoped, Effect.flip)
  )

describe("roots of sandboxes", () => {
  afterAll(() => {
    Jobs.remove(state)
    Jobs.remove(files)
  })

  layer(Jobs.layer("oci", state), { excludeTestServices: true, timeout: "1 minute" })("in one executor", (it) => {
    it.effect("an image gives programs, PATH and variables; the job's own variables are stronger", () =>
      Effect.gen(function*() {
        const root = { image: layout(plain()) }
        const env = yield* output(root, ["tool", "env"], { COLOUR: "red", MORE: "1" })
        assert.deepStrictEqual(env.trim().split("\n").toSorted(), [
          "COLOUR=red",
          "HOME=/work",
          "LANG=C.UTF-8",
          "MORE=1",
          "PATH=/opt/bin",
          "TMPDIR=/tmp"
        ])
        assert.strictEqual(yield* output(root, ["tool", "id"]), "1000 1000\n")
      }))

    it.effect("all archives are taken, and a changed one is another image", () =>
      Effect.gen(function*() {
        const oci = yield* driver
        const identity = (image: string) => oci.rootIdentity?.(classOf({ image })) ?? Effect.succeed("")
        const content = "what is in it"
        const options = {
          layers: [Make.tar([...base, { name: "word", content, mode: 0o644 }])],
          env: ["PATH=/opt/bin"]
        }
        const path = file(Make.ociArchive(Make.image(options)))
        const archives = [
          `oci-archive:${path}`,
          `oci-archive:${file(gzipSync(Make.ociArchive(Make.image(options))))}`,
          `docker-archive:${file(Make.dockerArchive(options))}`,
          `docker-archive:${file(Make.dockerArchive(options))}:stoker.test/made:1`,
          layout(Make.image({ ...options, index: ["arm64", "amd64", "riscv64"] }))
        ]
        for (const image of archives) {
          assert.strictEqual(yield* output({ image }, ["tool", "cat", "/word"]), content, image)
        }
        const before = yield* identity(`oci-archive:${path}`)
        assert.match(before, /^image sha256:[0-9a-f]{64}$/)
        assert.strictEqual(yield* identity(layout(Make.image(options))), before)
      }), 60_000)

    it.effect("later layers replace, remove and hide what earlier ones have", () =>
      Effect.gen(function*() {
        const image = layout(Make.image({
          layers: [
            Make.tar([
              ...base,
              { name: "d/", type: "5" },
              { name: "d/a", content: "a", mode: 0o644 },
              { name: "d/b", content: "b", mode: 0o644 },
              { name: "e/", type: "5" },
              { name: "e/a", content: "a", mode: 0o644 }
            ]),
            Make.tar([{ name: "d/.wh.a" }, { name: "e/.wh..wh..opq" }, { name: "e/c", content: "c", mode: 0o644 }])
          ]
        }))
        const said = yield* output({ image }, ["/opt/bin/tool", "cat", "/d/a", "/d/b", "/e/a", "/e/c"])
        assert.strictEqual(said, "bc/d/a: No such file or directory\n/e/a: No such file or directory\n")
      }))

    it.effect("what a sandbox needs is there whatever the image has in its place, and the image is not written to", () =>
      Effect.gen(function*() {
        const traps = ["work", "tmp", "proc", "dev", "sys", ".stoker", "etc"].map((name) => ({
          name,
          type: "2",
          target: "/"
        }))
        const evil = layout(plain(traps))
        const said = yield* output({ image: evil }, ["tool", "cat", "/etc/passwd", "/proc/self/comm"])
        assert.include(said, "job:x:1000:1000:job:/work:/bin/sh\n")
        assert.include(said, "tool\n")
        assert.notInclude(said, readFileSync("/etc/shadow", "utf8").split("\n")[0] ?? "root")
        const stat = yield* output({ image: evil }, ["tool", "stat", "/work", "/tmp", "/dev/null", "/.stoker/guest"])
        assert.match(stat, /^\/work 40700 1000\n\/tmp 41777 \d+\n\/dev\/null 20666 \d+\n/)
        assert.match(stat, /\/\.stoker\/guest 100550 /)
        const digest = (yield* (yield* driver).rootIdentity?.(classOf({ image: evil })) ?? Effect.succeed("")).slice(6)
        const tree = join(state, "images", "v1", digest.replace(":", "-"), "root")
        assert.deepStrictEqual(readdirSync(tree).toSorted(), [...traps.map(({ name }) => name), "opt"].toSorted())
        for (const { name } of traps) assert.isTrue(lstatSync(join(tree, name)).isSymbolicLink(), name)
      }))

    it.effect("links in /etc of an image lead nobody to files of the host", () =>
      Effect.gen(function*() {
        const image = layout(plain([
          { name: "etc/", type: "5" },
          { name: "etc/passwd", type: "2", target: "/etc/shadow" },
          { name: "etc/group", type: "1", target: "opt/bin/tool" }
        ]))
        const said = yield* output({ image }, ["tool", "cat", "/etc/passwd"])
        assert.include(said, "job:x:1000")
        assert.notInclude(said, "root:*")
        assert.match(said, /^root:x:0:0:/)
      }))

    it.effect("users of the image stay, but nobody else has the job's name or number", () =>
      Effect.gen(function*() {
        const passwd =
          "root:x:0:0:root:/root:/bin/bash\napp:x:1000:1000::/app:/bin/sh\njob:x:7:7::/:/bin/sh\nwww:x:33:33::/:/bin/sh\n"
        const image = layout(plain([{ name: "etc/", type: "5" }, { name: "etc/passwd", content: passwd, mode: 0o644 }]))
        assert.strictEqual(
          yield* output({ image }, ["tool", "cat", "/etc/passwd"]),
          "root:x:0:0:root:/root:/bin/bash\nwww:x:33:33::/:/bin/sh\njob:x:1000:1000:job:/work:/bin/sh\n"
        )
      }))

    it.effect("devices and setuid mean nothing, the root is read-only, and all of it belongs to nobody", () =>
      Effect.gen(function*() {
        const image = layout(plain([
          { name: "mem", type: "3", device: [1, 1], mode: 0o666 },
          { name: "disk", type: "4", device: [254, 0], mode: 0o666 },
          { name: "pipe", type: "6", mode: 0o666 },
          { name: "sudo", content: tool, mode: 0o4755 },
          { name: "secret", content: "x", mode: 0o600, uid: 0 },
          {
            name: "open",
            content: "for all",
            mode: 0o644,
            uid: 33,
            pax: { "SCHILY.xattr.trusted.overlay.opaque": "y" }
          }
        ]))
        const said = yield* output({ image }, ["tool", "stat", "/mem", "/disk", "/sudo", "/open", "/opt/bin/tool"])
        for (const line of said.trim().split("\n")) assert.match(line, / 10[04]\d+ 65534$/, said)
        assert.strictEqual(yield* output({ image }, ["/sudo", "id"]), "1000 1000\n")
        assert.include(yield* output({ image }, ["tool", "cat", "/secret", "/open"]), "for all")
        assert.include(yield* output({ image }, ["tool", "cat", "/secret"]), "Permission denied")
        assert.include(yield* output({ image }, ["tool", "write", "/opt/new"]), "Read-only file system")
      }))

    it.effect("names that lead out are refused, and nothing outside is touched", () =>
      Effect.gen(function*() {
        const victim = join(files, "victim")
        writeFileSync(victim, "mine")
        const up = `${"../".repeat(20)}${victim.slice(1)}`
        const refused: ReadonlyArray<readonly [Make.Member, RegExp]> = [
          [{ name: "../../up", content: "x" }, /a file named "\.\.\/\.\.\/up", which leads out of the image/],
          [{ name: "long", content: "x", pax: { path: up } }, /leads out of the image/],
          [
            { name: "hard", type: "1", target: "../../../etc/passwd" },
            /"hard" is a hard link to "\.\.\/.*", which leads out/
          ],
          [{ name: "./", type: "2", target: "/etc" }, /its root is not a directory/]
        ]
        for (const [member, pattern] of refused) {
          const error = yield* refusal({ image: layout(plain([member])) })
          assert.strictEqual(error.step, "image")
          assert.match(error.reason, pattern)
        }
        // These stay within: as everybody else does it, the image's root is what they are below.
        const inside = layout(plain([
          { name: victim.slice(0, 99), content: "theirs" },
          { name: "x", type: "2", target: files.slice(0, 99) },
          { name: "x/victim", content: "theirs" },
          { name: `//${"a".repeat(10)}`, content: "theirs" }
        ]))
        yield* output({ image: inside }, ["tool", "id"])
        assert.strictEqual(readFileSync(victim, "utf8"), "mine")
        assert.isFalse(existsSync("/aaaaaaaaaa"))
        // A hard link to a file that only the host has.
        const outward = yield* refusal({ image: layout(plain([{ name: "hard", type: "1", target: victim }])) })
        assert.match(outward.reason, /umoci.*no such file/)
      }), 60_000)

    it.effect("what is damaged or another's is refused in words", () =>
      Effect.gen(function*() {
        const layers = [Make.tar(base)]
        // An image that is there already is not fetched again, so it would not be found damaged.
        const unlike = { name: "unlike/all/others", content: "1" }
        const whole = Make.ociArchive(plain())
        const junk = Buffer.from("this is no archive of any kind\n".repeat(1000))
        const bad: ReadonlyArray<readonly [string, RegExp]> = [
          [
            layout(plain([], { architecture: "s390x" })),
            /it is for linux\/s390x, and this host is linux\/(amd64|arm64)/
          ],
          [
            layout(plain([], { index: ["s390x", "riscv64"] })),
            /it is for linux\/s390x, linux\/riscv64, and this host is linux\//
          ],
          [
            layout(plain([unlike], { damage: (bytes) => bytes.subarray(0, bytes.length / 2) })),
            /corrupt|digest|not match|EOF|size/i
          ],
          [
            layout(
              plain([unlike], {
                damage: (bytes) => Buffer.from(bytes.map((byte, at) => at === 2000 ? byte ^ 1 : byte))
              })
            ),
            /what came is not what its digest says|digest/i
          ],
          [layout(Make.image({ layers: [Make.tar(base).subarray(0, 5000)] })), /ends in the middle of a file/],
          [layout(Make.image({ layers: [junk] })), /no tar archive/],
          [layout(Make.image({ layers: [] })), /it has no layers/],
          [
            layout(Make.image({ layers, layerType: "application/vnd.cncf.helm.chart.content.v1.tar+gzip" })),
            /a layer of it is ".*helm.*", which is not unpacked/
          ],
          [layout(plain([{ name: "holes", type: "S", content: "x" }])), /a member of type "S"/],
          [layout(plain([{ name: "holes", content: "x", pax: { "GNU.sparse.major": "1" } }])), /a sparse file/],
          [`oci-archive:${file(whole.subarray(0, whole.length / 2))}`, /it is corrupt, or no image/],
          [`oci-archive:${file(junk)}`, /it is corrupt, or no image|failed/],
          [`docker-archive:${file(junk)}`, /it is corrupt, or no image|failed/],
          ["oci-archive:/nowhere/at/all.tar", /\/nowhere\/at\/all\.tar is not there/],
          [`oci-archive:${files}`, /is no file/],
          ["oci:/nowhere:latest", /\/nowhere is not there/],
          [layout(plain()).replace(":latest", ":other"), /there is no such image/],
          ["dir:/somewhere", /images are not taken from "dir:"/],
          ["Not/A:Name:At:All", /is no image's name|not taken from/],
          ["localhost:1/no/such:image", /the registry cannot be reached/]
        ]
        for (const [image, pattern] of bad) {
          const error = yield* refusal({ image })
          assert.match(error.reason, pattern, image)
          assert.isAbove(error.remedy.length, 10, image)
          assert.strictEqual(error.step, "image")
        }
        // The class beside it is well, and nothing is left of those that failed.
        yield* output({ image: layout(plain([{ name: "other", content: "1" }])) }, ["tool", "id"])
        assert.deepStrictEqual(readdirSync(join(state, "images", "v1")).filter((name) => name.startsWith("tmp.")), [])
      }), 120_000)

    it.effect("a directory of the host is a root; nothing is written to it", () =>
      Effect.gen(function*() {
        const directory = join(files, "tree,with:odd\\names")
        mkdirSync(join(directory, "usr/bin"), { recursive: true, mode: 0o755 })
        writeFileSync(join(directory, "usr/bin/tool"), tool, { mode: 0o755 })
        symlinkSync("usr/bin", join(directory, "bin"))
        chmodSync(directory, 0o755)
        const before = readdirSync(directory)
        assert.strictEqual(yield* output({ directory }, ["tool", "id"]), "1000 1000\n")
        assert.include(yield* output({ directory }, ["/bin/tool", "cat", "/etc/passwd"]), "job:x:1000")
        assert.include(yield* output({ directory }, ["tool", "write", "/usr/bin/new"]), "Read-only file system")
        assert.deepStrictEqual(readdirSync(directory), before)
        const oci = yield* driver
        const identity = Effect.suspend(() => oci.rootIdentity?.(classOf({ directory })) ?? Effect.succeed(""))
        const first = yield* identity
        assert.match(first, /^directory [0-9a-f]{64}$/)
        assert.strictEqual(yield* identity, first)
        writeFileSync(join(directory, "usr/bin/gcc"), "new", { mode: 0o755 })
        assert.notStrictEqual(yield* identity, first)
      }))

    it.effect("directories that others could change, or that are the host's own, are refused", () =>
      Effect.gen(function*() {
        const open = join(files, "open")
        mkdirSync(join(open, "below"), { recursive: true })
        chmodSync(open, 0o777)
        const bad: ReadonlyArray<readonly [string, RegExp]> = [
          ["/nowhere/at/all", /it cannot be found/],
          ["/", /that is the host itself/],
          ["/proc/1/root/", /that is the host itself|cannot be found/],
          ["/proc/sys", /that is the kernel's/],
          ["/mnt", /the runtime is shown the sandboxes' roots at \/mnt, which hides it/],
          ["/etc/passwd", /it is no directory/],
          [open, /others than root can write to it \(uid 0, mode 777\)/],
          [join(open, "below"), /others than root can write to .*\/open, so they could put another one there/],
          [state, /the worker's state is in it/],
          [join(state, "images"), /the worker's state is in it/]
        ]
        for (const [directory, pattern] of bad) {
          const error = yield* refusal({ directory })
          assert.match(error.reason, pattern, directory)
          assert.strictEqual(error.step, "image")
        }
      }))

    it.effect("doctor says of each class whether its root and its runtime can be had", () =>
      Effect.gen(function*() {
        const oci = yield* driver
        const checks = (root: Root, more: Partial<SandboxClass> = {}) =>
          Effect.map(
            oci.checkClass?.(classOf(root, more)) ?? Effect.succeed([]),
            (found) => found.map(({ detail, name, status }) => `${name} ${status} ${detail}`)
          )
        const good = layout(plain())
        assert.match((yield* checks({ image: good }))[0] ?? "", /^root ok class r\w+: oci:/)
        assert.match(
          (yield* checks({ image: "debian:12" }))[0] ?? "",
          /^root ok .*asked for when its first sandbox is made/
        )
        assert.match((yield* checks({ image: "oci-archive:/nowhere.tar" }))[0] ?? "", /^root missing .*is not there/)
        assert.match((yield* checks({ directory: "/proc" }))[0] ?? "", /^root missing .*that is the kernel's/)
        assert.match(
          (yield* checks({ image: good }, { runtime: "runsc" }))[0] ?? "",
          /^runtime ok class r\w+: .*runsc \d{8}$/
        )
      }))

    it.effect("an image is a root for runsc as well", () =>
      Effect.gen(function*() {
        const sandboxClass = classOf({ image: layout(plain([{ name: "word", content: "yes", mode: 0o644 }])) }, {
          runtime: "runsc"
        })
        const ran = yield* Jobs.runIn(sandboxClass, {
          args: { argv: ["tool", "cat", "/word", "/proc/version", "/etc/passwd"] }
        })
        assert.strictEqual(ran.outcome._tag, "Exited", JSON.stringify(ran.outcome))
        assert.match(ran.stdout.toString(), /^yesLinux version 4\.4\.0 /)
        assert.include(ran.stdout.toString(), "job:x:1000")
        const written = yield* Jobs.runIn(sandboxClass, { args: { argv: ["tool", "write", "/opt/new"] } })
        assert.match(written.stderr.toString(), /Read-only file system|Permission denied/)
        const digest = (yield* (yield* driver).rootIdentity?.(sandboxClass) ?? Effect.succeed("")).slice(
          "image ".length
        )
        const tree = join(state, "images", "v1", digest.replace(":", "-"), "root")
        assert.deepStrictEqual(readdirSync(join(tree, "opt")), ["bin"])
      }))

    it.effect("the host's own root is as it was", () =>
      Effect.gen(function*() {
        const ran = yield* Jobs.run("oci", { args: { argv: ["/bin/sh", "-c", "ls -d /usr/bin /etc/passwd; id -u"] } })
        assert.strictEqual(ran.outcome._tag, "Exited", JSON.stringify(ran.outcome))
        assert.strictEqual(ran.stdout.toString(), "/etc/passwd\n/usr/bin\n1000\n")
        assert.match(yield* (yield* driver).rootIdentity?.(standardClass("oci", "oci")) ?? Effect.succeed(""), /^host /)
        assert.isTrue(statSync("/usr").isDirectory())
      }))
  })
})
