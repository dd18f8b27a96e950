/** The smallest OCI bundle with the guest as pid 1: the place it is made for. */
import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { guestPath } from "./Native.ts"

/** Uid 0 of a user namespace, only what the guest needs to become the job (1000) and to kill it. */
const capabilities = ["CAP_SETUID", "CAP_SETGID", "CAP_KILL"]
const identity = [{ containerID: 0, hostID: 100_000, size: 65_536 }]

/** Writes the bundle into an existing directory that every user may search. */
export const writeBundle = (dir: string): void => {
  const root = join(dir, "rootfs")
  for (const name of ["usr", "etc", "proc", "dev", "sys", "tmp", "work"]) {
    mkdirSync(join(root, name), { recursive: true })
  }
  for (const name of ["bin", "sbin", "lib", "lib64"]) symlinkSync(`usr/${name}`, join(root, name))
  copyFileSync(guestPath, join(root, "guest"))
  writeFileSync(
    join(dir, "config.json"),
    JSON.stringify({
      ociVersion: "1.0.2",
      process: {
        terminal: false,
        user: { uid: 0, gid: 0 },
        args: ["/guest", "--work", "/work", "--uid", "1000", "--gid", "1000"],
        env: ["PATH=/usr/bin:/bin"],
        cwd: "/",
        noNewPrivileges: true,
        capabilities: {
          bounding: capabilities,
          effective: capabilities,
          permitted: capabilities,
          inheritable: [],
          ambient: []
        }
      },
      root: { path: "rootfs", readonly: true },
      mounts: [
        { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
        { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755", "size=64k"] },
        { destination: "/usr", type: "bind", source: "/usr", options: ["rbind", "ro", "nosuid", "nodev"] },
        {
          destination: "/work",
          type: "tmpfs",
          source: "tmpfs",
          options: ["nosuid", "nodev", "mode=700", "uid=1000", "gid=1000", "size=16m"]
        }
      ],
      linux: {
        namespaces: ["pid", "mount", "network", "ipc", "uts", "cgroup", "user"].map((type) => ({ type })),
        uidMappings: identity,
        gidMappings: identity
      }
    })
  )
}
