/** Kernels and modules as files: what is taken out of them, and what is refused. */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { inspect, readingBuffer } from "../../src/layers/microvm/image/Elf.ts"
import { extractVmlinux, kindOf, releaseOf } from "../../src/layers/microvm/image/KernelFile.ts"
import { LZ4_MAGIC, unpackLz4 } from "../../src/layers/microvm/image/Lz4.ts"
import { dependsOf, loadingOrder, moduleName } from "../../src/layers/microvm/image/Modules.ts"
import { whyNoKernel } from "../../src/layers/microvm/image/Verify.ts"
import { run } from "../support/Run.ts"
import { projectRoot, Tree } from "../support/Tree.ts"
import { bzImage, file, kernel, lz4 } from "./Make.ts"

const frame = (...blocks: ReadonlyArray<Buffer>) => {
  const u32 = (value: number) => {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(value)
    return bytes
  }
  return Buffer.concat([u32(LZ4_MAGIC), ...blocks.flatMap((block) => [u32(block.length), block])])
}

describe("LZ4", () => {
  it("unpacks matches that overlap themselves, long lengths and several blocks", () => {
    // "ab", then 18 bytes from 2 before: "ab" nine times more; then the last literals.
    const overlap = Buffer.from([0x2e, 0x61, 0x62, 0x02, 0x00, 0x10, 0x2e])
    assert.strictEqual(unpackLz4(frame(overlap), 21).toString(), `${"ab".repeat(10)}.`)
    // 15 + 3 more for the match: 22 bytes of one letter.
    const long = Buffer.from([0x1f, 0x78, 0x01, 0x00, 0x03, 0x10, 0x2e])
    assert.strictEqual(unpackLz4(frame(overlap, long), 45).toString(), `${"ab".repeat(10)}.${"x".repeat(23)}.`)
  })

  it("refuses what is cut off, leads out of its block, or comes to another length", () => {
    const block = Buffer.from([0x2e, 0x61, 0x62, 0x02, 0x00, 0x10, 0x2e])
    const bad: ReadonlyArray<readonly [Buffer, number]> = [
      [frame(block).subarray(0, -1), 21],
      [frame(block), 22],
      [frame(block), 20],
      [frame(Buffer.from([0x2e, 0x61, 0x62, 0x03, 0x00, 0x10, 0x2e])), 21],
      [frame(Buffer.from([0x2e, 0x61, 0x62, 0x00, 0x00, 0x10, 0x2e])), 21],
      [frame(Buffer.from([0xf0, 0xff, 0xff])), 600],
      // The second block may not reach into the first.
      [frame(block, Buffer.from([0x2e, 0x61, 0x62, 0x03, 0x00, 0x10, 0x2e])), 42]
    ]
    for (const [bytes, length] of bad) assert.throws(() => unpackLz4(bytes, length))
  })
})

describe("a kernel's file", () => {
  const vmlinux = kernel()

  it("is an ELF file in a bzImage, packed in any of four ways", async () => {
    using tree = Tree.of({})
    const path = file(join(tree.path, "vmlinux"), vmlinux)
    const { code } = await run("xz", ["--check=crc32", "--keep", path])
    assert.strictEqual(code, 0)
    const packed = [lz4(vmlinux), zstdCompressSync(vmlinux), readFileSync(`${path}.xz`)]
    for (const bytes of packed) {
      const found = await extractVmlinux(bzImage(bytes, vmlinux.length))
      assert.isTrue(found.equals(vmlinux))
    }
    // gzip has its length itself: what the others have behind them is its own end.
    const gzip = gzipSync(vmlinux)
    assert.isTrue((await extractVmlinux(bzImage(gzip.subarray(0, -4), vmlinux.length))).equals(vmlinux))
    assert.strictEqual(releaseOf(vmlinux), "6.1.0-test")
  })

  it("says why it is none", async () => {
    const refusals: ReadonlyArray<readonly [Buffer, RegExp]> = [
      [bzImage(Buffer.from("neither of them, but long enough"), 100), /packed in a way that is not known/],
      [bzImage(lz4(vmlinux), 2 ** 31), /says that it holds/],
      [bzImage(lz4(vmlinux).subarray(0, -9), vmlinux.length), /cannot be unpacked/],
      [bzImage(lz4(vmlinux), vmlinux.length).subarray(0, -120), /cut off/],
      [bzImage(lz4(Buffer.alloc(4000, "x")), 4000), /no ELF file/]
    ]
    for (const [bytes, reason] of refusals) {
      const said = await extractVmlinux(bytes).then(() => "nothing", String)
      assert.match(said, reason)
    }
    assert.deepStrictEqual(
      [vmlinux, bzImage(lz4(vmlinux), 1), Buffer.from("!<arch>\ndebian"), Buffer.alloc(1024)].map(kindOf),
      ["vmlinux", "bzImage", "deb", "unknown"]
    )
  })

  it("is refused for another machine, without PVH, cut off, and when it is none", async () => {
    const why = async (bytes: Buffer) => whyNoKernel(await inspect(readingBuffer(bytes)), bytes.length, "x64")?.reason
    assert.isUndefined(await why(vmlinux))
    assert.match(await why(kernel({ machine: 183 })) ?? "", /is for arm64, and this machine is x64/)
    assert.match(await why(kernel({ machine: 243 })) ?? "", /is for machine type 243/)
    assert.match(await why(kernel({ pvh: false })) ?? "", /has no PVH note/)
    assert.match(await why(kernel({ note: "Zen" })) ?? "", /has no PVH note/)
    assert.match(await why(vmlinux.subarray(0, -1)) ?? "", /is cut off/)
    assert.match(await why(kernel({ bits: 1 })) ?? "", /is no ELF file/)
    assert.match(await why(Buffer.from("#!/bin/sh\n")) ?? "", /is no ELF file/)
  })

  const real = join(projectRoot, "build/guestvm/kernel/vmlinuz")
  it.skipIf(!existsSync(real))("is found in Debian's own bzImage", async () => {
    const found = await extractVmlinux(readFileSync(real))
    const elf = await inspect(readingBuffer(found))
    assert.isUndefined(whyNoKernel(elf, found.length, "x64"))
    assert.match(releaseOf(found) ?? "", /^6\.\d+\.\d+-\d+-cloud-amd64$/)
  })
})

describe("modules", () => {
  it("are loaded after what they need, each once; what is built in is not", async () => {
    const needs: Readonly<Record<string, ReadonlyArray<string> | "builtin">> = {
      net: ["failover", "ring", "bus"],
      failover: ["base"],
      base: [],
      bus: ["ring"],
      ring: [],
      ext4: "builtin"
    }
    const find = async (name: string) => needs[name] ?? Promise.reject(new Error(`no ${name}`))
    assert.deepStrictEqual(await loadingOrder(["bus", "net", "ext4", "bus"], find), [
      "ring",
      "bus",
      "base",
      "failover",
      "net"
    ])
    assert.match(await loadingOrder(["net", "gone"], find).then(String, String), /no gone/)
  })

  const ko = (name: string) => join(projectRoot, "build/guestvm/kernel", name)
  it.skipIf(!existsSync(ko("virtio.ko")))("say themselves what they need", () => {
    assert.deepStrictEqual(dependsOf(readFileSync(ko("virtio.ko"))), ["virtio_ring"])
    assert.deepStrictEqual(dependsOf(readFileSync(ko("virtio_ring.ko"))), [])
    assert.include(dependsOf(readFileSync(ko("virtiofs.ko"))), "fuse")
    assert.deepStrictEqual(["kernel/a/virtio-rng.ko", "b/ext4.ko.xz"].map(moduleName), ["virtio_rng", "ext4"])
  })
})
