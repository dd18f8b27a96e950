/** The name of the host's compilers changes when they do. Changes are mounts that nobody else sees. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import { projectEnv } from "../support/Run.ts"

const run = promisify(execFile)
const script = join(import.meta.dirname, "hostRoot.ts")

/** What it is after these shell commands. */
const identityAfter = (commands: string) =>
  Effect.promise(async () => {
    const { stdout } = await run("unshare", ["--mount", "sh", "-ec", `${commands}\nexec node "$1"`, "sh", script], {
      env: projectEnv
    })
    assert.match(stdout, /^host [a-z0-9]+ [0-9a-f]{64}$/)
    return stdout
  })

describe("the identity of the host's root", () => {
  it.live(
    "is the same until a compiler, a library or the list of packages is another one",
    () =>
      Effect.gen(function*() {
        const usual = yield* identityAfter("")
        assert.strictEqual(yield* identityAfter(""), usual)
        const changes = [
          // Another compiler before the usual one in the PATH.
          "mount -t tmpfs none /usr/local/bin; printf '#!/bin/sh\\n' > /usr/local/bin/gcc; chmod 755 /usr/local/bin/gcc",
          "mount --bind /bin/true \"$(gcc -print-prog-name=cc1)\"",
          "mount --bind /bin/true \"$(readlink -f \"$(command -v as)\")\"",
          "mount -t tmpfs none /usr/include",
          "mount --bind /etc/hostname /etc/ld.so.cache",
          "mount --bind /etc/hostname /var/lib/dpkg/status"
        ]
        const others = yield* Effect.forEach(changes, identityAfter)
        assert.strictEqual(new Set([usual, ...others]).size, changes.length + 1)
      }),
    60_000
  )
})
