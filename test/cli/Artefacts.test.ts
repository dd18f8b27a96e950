import { afterAll, assert, beforeEach, describe, it } from "@effect/vitest"
import { createHash } from "node:crypto"
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { Stoker } from "./Stoker.ts"

const stoker = new Stoker()
afterAll(() => stoker.dispose())

let folder = ""
beforeEach(() => {
  folder = mkdtempSync(join(stoker.folder, "here-"))
})

const here = (...args: ReadonlyArray<string>) => stoker.run(args, { cwd: folder })
const text = (...path: ReadonlyArray<string>) => readFileSync(join(folder, ...path), "utf8")

/** Two files, one of them of all bytes there are; one that is none; one that is not there. */
const leaving = ["sh", "-c", "mkdir -p d; echo one > d/one; cat /bin/true > binary; mkfifo pipe"]
const wanted = ["--artefact", "d/one", "--artefact", "binary", "--artefact", "pipe", "--artefact", "absent"]

const newest = async () => (await stoker.list())[0]?.id ?? ""

// Many commands each, on a machine that may be busy.
describe("files that a job leaves, on the command line", { timeout: 120_000 }, () => {
  it("come to the directory one is in, or is named, and what does not come is said", async () => {
    const { code, stderr, stdout } = await here("run", ...wanted, "--", ...leaving)
    assert.deepStrictEqual({ code, stdout }, { code: 0, stdout: "" })
    assert.strictEqual(text("d", "one"), "one\n")
    assert.deepStrictEqual(readFileSync(join(folder, "binary")), readFileSync("/bin/true"))
    assert.deepStrictEqual(readdirSync(folder).toSorted(), ["binary", "d"])
    assert.include(stderr, "pipe was not brought back: it is not a regular file")
    assert.include(stderr, "absent was not brought back: there is no such file")
    assert.match(stderr, /d\/one \(4 B\) is in \./)

    const elsewhere = await here("run", "-q", "--out", "new/results", ...wanted, "--", ...leaving)
    assert.strictEqual(elsewhere.code, 0)
    assert.strictEqual(text("new/results/d/one"), "one\n")
    // Quiet, but for what is missing.
    assert.deepStrictEqual(elsewhere.stderr.match(/was not brought back/g)?.length, 2)
    assert.notInclude(elsewhere.stderr, "is in")
  })

  it("never take the place of what is there unasked, and that is said before anything runs", async () => {
    writeFileSync(join(folder, "out"), "mine")
    const args = ["--artefact", "out", "--", "sh", "-c", "echo ran; echo theirs > out"]
    const refused = await here("run", ...args)
    assert.match(refused.stderr, /out is there already in \.[^]*--out[^]*--overwrite/)
    assert.deepStrictEqual({ code: refused.code, stdout: refused.stdout }, { code: 1, stdout: "" })
    assert.strictEqual(text("out"), "mine")
    assert.strictEqual((await here("run", "--overwrite", ...args)).code, 0)
    assert.strictEqual(text("out"), "theirs\n")
    assert.deepStrictEqual(readdirSync(folder), ["out"])
  })

  it("follow no link out of their directory, also when asked to replace", async () => {
    const secret = join(stoker.folder, `secret-${folder.slice(-6)}`)
    mkdirSync(secret)
    writeFileSync(join(secret, "file"), "untouched")
    symlinkSync(secret, join(folder, "d"))
    symlinkSync(join(secret, "file"), join(folder, "link"))
    const args = ["--artefact", "d/x", "--artefact", "link", "--artefact", "fine", "--"]
    const job = ["sh", "-c", "mkdir d; echo evil | tee d/x link fine > all"]
    const { code, stderr } = await here("run", "--overwrite", ...args, ...job)
    // The program succeeded, and not all that it left is there.
    assert.strictEqual(code, 125)
    assert.match(stderr, /d\/x: something that is no directory stands in its path: links are not followed/)
    assert.match(stderr, /stoker artefacts ID --all/)
    assert.deepStrictEqual(readdirSync(secret), ["file"])
    assert.strictEqual(readFileSync(join(secret, "file"), "utf8"), "untouched")
    // The link itself was replaced, not what it leads to.
    assert.isFalse(lstatSync(join(folder, "link")).isSymbolicLink())
    assert.strictEqual(text("fine"), "evil\n")
    // A program's own code is worth more than ours.
    const failing = await here("run", "--overwrite", ...args, "sh", "-c", `${job[2]}; exit 7`)
    assert.strictEqual(failing.code, 7)
    assert.match(failing.stderr, /links are not followed/)
  })

  it("come back from a job whose time was up", async () => {
    const { code } = await here(
      "run",
      "--wall",
      "500ms",
      "--artefact",
      "part",
      "--",
      "sh",
      "-c",
      "echo x > part; sleep 9"
    )
    assert.strictEqual(code, 124)
    assert.strictEqual(text("part"), "x\n")
  })

  it("are in the document for programs", async () => {
    const { stderr, stdout } = await here("run", "--json", ...wanted, "--", ...leaving)
    const { artefacts, artefactsMissing } = JSON.parse(stdout)
    assert.deepStrictEqual(artefacts[0], {
      path: "d/one",
      bytes: 4,
      sha256: createHash("sha256").update("one\n").digest("hex")
    })
    assert.deepStrictEqual(artefactsMissing.map(({ path }: { path: string }) => path), ["pipe", "absent"])
    assert.strictEqual(stderr, "")
    const lines = (await here("run", "--events", "--overwrite", ...wanted, "--", ...leaving)).stdout.trim().split("\n")
    assert.deepStrictEqual(JSON.parse(lines.at(-1) ?? "").artefacts, artefacts)
  })

  for (const path of ["../x", "/etc/passwd", "a\nb", "a//b", "."]) {
    it(`are no paths such as ${JSON.stringify(path)}`, async () => {
      const { code, stderr } = await here("run", "--artefact", path, "--", "true")
      assert.match(stderr, /--artefact[^]*relative path/)
      assert.strictEqual(code, 1)
    })
  }

  it("can be had later: listed, one on stdout, one in a file, all below a directory", async () => {
    await here("run", "-q", "--out", "first", ...wanted, "--", ...leaving)
    const id = await newest()
    const list = await here("artefacts", id)
    assert.match(list.stdout, /PATH[^]*d\/one +4 B +[0-9a-f]{64}\nbinary [^]*pipe +- +it is not a regular file/)
    const listed = JSON.parse((await here("artefacts", id, "--json")).stdout)
    assert.deepStrictEqual(listed.artefacts.map(({ path }: { path: string }) => path), ["d/one", "binary"])
    assert.match(
      (await here("status", id)).stdout,
      /artefact +d\/one, 4 B\n[^]*no artefact +absent: there is no such file/
    )
    const { settlement } = JSON.parse((await here("status", id, "--json")).stdout)
    assert.deepStrictEqual(settlement.artefacts, listed.artefacts)

    assert.strictEqual((await here("artefacts", id, "d/one")).stdout, "one\n")
    assert.strictEqual((await here("artefacts", id, "binary", "-o", "copy")).code, 0)
    assert.deepStrictEqual(readFileSync(join(folder, "copy")), readFileSync("/bin/true"))
    const again = await here("artefacts", id, "d/one", "-o", "copy")
    assert.match(again.stderr, /copy: it is there already/)
    assert.strictEqual(again.code, 1)
    assert.strictEqual((await here("artefacts", id, "--all", "-o", "all")).code, 0)
    assert.strictEqual(text("all", "d", "one"), "one\n")

    const absent = await here("artefacts", id, "absent")
    assert.match(absent.stderr, /left no file absent: there is no such file/)
    assert.strictEqual(absent.code, 1)
    const nowhere = await here("artefacts", id, "-o", "x")
    assert.match(nowhere.stderr, /--out without a path[^]*--all/)
    assert.strictEqual(nowhere.code, 1)
    assert.isFalse(existsSync(join(folder, "x")))
  })

  it("are said to be none, or not there any more", async () => {
    await here("run", "-q", "--", "true")
    assert.match((await here("artefacts", await newest())).stderr, /left no files[^]*--artefact/)
    await here("run", "-q", "--artefact", "x", "--", "sh", "-c", "echo kept > x")
    const id = await newest()
    const kept = join(stoker.state, "artefacts")
    const [file = ""] = readdirSync(kept, { recursive: true, encoding: "utf8" })
      .map((name) => join(kept, name))
      .filter((path) => lstatSync(path).isFile() && readFileSync(path, "latin1").includes(id))
    rmSync(file)
    const { code, stderr, stdout } = await here("artefacts", id, "x")
    assert.match(stderr, /no artefact x is kept[^]*lies on the host of worker/)
    assert.deepStrictEqual({ code, stdout }, { code: 1, stdout: "" })
  })

  it("wait with submit --wait, or with the job; CodeBench messages cannot say them", async () => {
    const alone = await here("submit", "--out", "x", "--artefact", "d/one", "--", ...leaving)
    assert.match(alone.stderr, /--out means nothing without --wait/)
    const amqp = await stoker.run(["submit", "--artefact", "x", "--", "true"], {
      env: { AMQP_URL: "amqp://127.0.0.1:1" }
    })
    assert.match(amqp.stderr, /cannot say --artefact/)
    const worker = stoker.start(["worker", "--driver", "process", "--warm", "0"])
    await worker.said("stderr", "\"consuming\"")
    const { code, stderr } = await here("submit", "--wait", "--out", "x", ...wanted, "--", ...leaving)
    assert.strictEqual(code, 0, stderr)
    assert.strictEqual(text("x", "d", "one"), "one\n")
    assert.include(stderr, "absent was not brought back")
    const id = (await here("submit", ...wanted, "--", "sleep", "1000")).stdout.trim()
    const early = await here("artefacts", id, "d/one")
    assert.match(early.stderr, /its files come with its end/)
    assert.strictEqual((await here("stop", id)).code, 0)
    // Stopped, or never begun: each is accounted for, or none was looked for.
    assert.match(
      (await here("artefacts", id)).stdout + (await here("artefacts", id)).stderr,
      /no such file|left no files/
    )
    worker.kill("SIGTERM")
    assert.strictEqual((await worker.ended).code, 0)
  })
})
