/** Kernels as files: out of a bzImage comes the ELF `vmlinux` that VMMs boot directly. */
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { gunzipSync, zstdDecompressSync } from "node:zlib"
import { LZ4_MAGIC, unpackLz4 } from "./Lz4.ts"

/** What the file is, by its first bytes. */
export type Kind = "vmlinux" | "bzImage" | "deb" | "unknown"

export const kindOf = (head: Buffer): Kind => {
  if (head.length >= 4 && head.readUInt32BE(0) === 0x7f454c46) return "vmlinux"
  if (head.toString("latin1", 0, 8) === "!<arch>\n") return "deb"
  if (head.toString("latin1", 0x202, 0x206) === "HdrS") return "bzImage"
  return "unknown"
}

/** Why a file cannot be a kernel of ours: words for a person. */
export class NoKernel extends Error {}

/** Larger ones are no kernels. */
const MOST_BYTES = 512 * 1024 * 1024

/** `xz` is in every Debian, because dpkg needs it; Node has no decoder. */
const unpackXz = (packed: Buffer): Promise<Buffer> => {
  const running = promisify(execFile)("xz", ["--decompress", "--stdout", "--single-stream"], {
    encoding: "buffer",
    maxBuffer: MOST_BYTES,
    timeout: 120_000
  })
  running.child.stdin?.on("error", () => undefined) // its exit tells why
  running.child.stdin?.end(packed)
  return running.then(({ stdout }) => stdout)
}

const unpack = async (payload: Buffer): Promise<Buffer> => {
  const magic = payload.readUInt32LE(0)
  // All but gzip, which has it itself, are followed by the length of what they hold.
  const [packed, bytes] = [payload.subarray(0, -4), payload.readUInt32LE(payload.length - 4)]
  if (bytes > MOST_BYTES) throw new NoKernel(`it says that it holds ${bytes} bytes`)
  if (magic === LZ4_MAGIC) return unpackLz4(packed, bytes)
  if (magic === 0xfd2fb528) return zstdDecompressSync(packed, { maxOutputLength: MOST_BYTES })
  if ((magic & 0xffff) === 0x8b1f) return gunzipSync(payload, { maxOutputLength: MOST_BYTES })
  if (payload.toString("latin1", 0, 6) === "\u00fd7zXZ\0") return unpackXz(packed)
  throw new NoKernel("it is packed in a way that is not known here (known: lz4, zstd, gzip, xz)")
}

/** The ELF file within (Documentation/arch/x86/boot.rst of the kernel: `payload_offset`, `payload_length`). */
export const extractVmlinux = async (bzImage: Buffer): Promise<Buffer> => {
  if (bzImage.length < 0x260 || bzImage.readUInt16LE(0x206) < 0x208) {
    throw new NoKernel("its header is too old or cut off")
  }
  const start = ((bzImage[0x1f1] || 4) + 1) * 512 + bzImage.readUInt32LE(0x248)
  const length = bzImage.readUInt32LE(0x24c)
  if (length < 16 || start + length > bzImage.length) throw new NoKernel("it is cut off")
  const vmlinux = await unpack(bzImage.subarray(start, start + length)).catch((cause: unknown) => {
    throw cause instanceof NoKernel ? cause : new NoKernel(`it cannot be unpacked: ${String(cause)}`)
  })
  if (kindOf(vmlinux) !== "vmlinux") throw new NoKernel("what is packed in it is no ELF file")
  return vmlinux
}

/** As `uname -r` will say it, by the banner in its data. */
export const releaseOf = (vmlinux: Buffer): string | undefined => {
  for (let at = vmlinux.indexOf("Linux version "); at >= 0; at = vmlinux.indexOf("Linux version ", at + 1)) {
    // Not the format string, which has a percent sign there.
    const [, release] =
      /^Linux version ([0-9]+\.[0-9]+[A-Za-z0-9._+~-]*) /.exec(vmlinux.toString("latin1", at, at + 200)) ?? []
    if (release !== undefined) return release
  }
  return undefined
}
