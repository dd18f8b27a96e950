/** Starts real object stores of Debian's packages as `scripts/object-stores` unpacks them, and ends them. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import type { Server } from "../objectstore/suite.ts"
import { freePort } from "../support/Ports.ts"

const root = resolve(import.meta.dirname, "../../build/objectstore/root")

/** Sees the unpacked packages as if they were installed, alone: a mount namespace of its own, with overlays over /usr and /etc. */
const seen = (place: string, command: ReadonlyArray<string>): readonly [string, ReadonlyArray<string>] => [
  "unshare",
  [
    "--mount",
    "sh",
    "-c",
    `mount -t overlay overlay -o lowerdir=${root}/usr:/usr /usr && mount -t overlay overlay -o lowerdir=${place}/etc:/etc /etc && exec setpriv --pdeathsig KILL "$@"`,
    "sh",
    ...command
  ]
]

export class Servers {
  readonly #children: Array<ChildProcess> = []
  readonly place = mkdtempSync(join(tmpdir(), "stoker-stores-"))

  constructor() {
    mkdirSync(join(this.place, "etc/swift"), { recursive: true })
  }

  write(name: string, text: string): string {
    const path = join(this.place, name)
    writeFileSync(path, text)
    return path
  }
  run(...command: ReadonlyArray<string>): string {
    const [file, args] = seen(this.place, command)
    return execFileSync(file, [...args], {
      cwd: this.place,
      encoding: "utf8",
      timeout: 120_000,
      stdio: ["ignore", "pipe", "pipe"]
    })
  }
  start(name: string, ...command: ReadonlyArray<string>): void {
    const [file, args] = seen(this.place, command)
    const log = openSync(join(this.place, `${name}.log`), "w")
    const child = spawn(file, [...args], {
      cwd: this.place,
      stdio: ["ignore", log, log],
      env: { ...process.env, SWIFT_DIR: this.place }
    })
    closeSync(log)
    this.#children.push(child)
  }
  /** Until somebody answers there, whatever it is. */
  async answers(endpoint: string): Promise<void> {
    const until = Date.now() + 120_000
    while (Date.now() < until) {
      const isUp = await fetch(endpoint).then(() => true, () => false)
      if (isUp) return
      await new Promise((done) => setTimeout(done, 200))
    }
    throw new Error(`nobody answers at ${endpoint}: ${this.logs()}`)
  }
  logs(): string {
    return execFileSync("sh", ["-c", "tail -n 15 *.log"], { cwd: this.place, encoding: "utf8" })
  }
  async stop(): Promise<void> {
    await Promise.all(this.#children.map((child) =>
      new Promise<void>((done) => {
        if (child.exitCode !== null || child.signalCode !== null) return done()
        child.on("exit", () => done())
        child.kill("SIGKILL")
      })
    ))
    rmSync(this.place, { recursive: true, force: true })
  }
}

export const startSwift = async (servers: Servers): Promise<Server> => {
  const ports = {
    account: await freePort(),
    container: await freePort(),
    object: await freePort(),
    proxy: await freePort()
  }
  const { place } = servers
  mkdirSync(join(place, "node/sda"), { recursive: true })
  servers.write(
    "etc/swift/swift.conf",
    "[swift-hash]\nswift_hash_path_suffix = a\nswift_hash_path_prefix = b\n[storage-policy:0]\nname = p0\ndefault = yes\n"
  )
  const common = (port: number) =>
    `[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = ${port}\nuser = root\nswift_dir = ${place}\nworkers = 0\n`
    + "log_address = /dev/null\nlog_level = WARNING\n"
  for (const name of ["account", "container", "object"] as const) {
    servers.write(
      `${name}.conf`,
      `${common(ports[name])}devices = ${place}/node\nmount_check = false\ndisable_fallocate = true\n`
        + `[pipeline:main]\npipeline = ${name}-server\n[app:${name}-server]\nuse = egg:swift#${name}\n`
    )
    const ring = `${name}.builder`
    servers.run("swift-ring-builder", ring, "create", "4", "1", "1")
    servers.run("swift-ring-builder", ring, "add", `r1z1-127.0.0.1:${ports[name]}/sda`, "1")
    servers.run("swift-ring-builder", ring, "rebalance")
  }
  const filters = {
    catch_errors: "",
    cache: "memcache_servers = 127.0.0.1:1\n",
    listing_formats: "",
    bulk: "",
    slo: "",
    dlo: "",
    versioned_writes: "allow_versioned_writes = true\n",
    tempauth: "user_test_tester = testing .admin\n",
    s3api: "location = us-east-1\ns3_acl = no\nallow_multipart_uploads = yes\nauth_pipeline_check = yes\n"
  }
  const eggs: Readonly<Record<string, string>> = { cache: "memcache" }
  servers.write(
    "proxy.conf",
    `${common(ports.proxy)}[pipeline:main]\n`
      + "pipeline = catch_errors cache listing_formats bulk s3api tempauth slo dlo versioned_writes proxy-server\n"
      + "[app:proxy-server]\nuse = egg:swift#proxy\nallow_account_management = true\naccount_autocreate = true\n"
      + Object.entries(filters).map(([name, more]) =>
        `[filter:${name}]\nuse = egg:swift#${eggs[name] ?? name}\n${more}`
      ).join("")
  )
  for (const name of ["account", "container", "object", "proxy"]) {
    servers.start(name, "/usr/bin/python3", `/usr/bin/swift-${name}-server`, `${place}/${name}.conf`, "-v")
  }
  const endpoint = `http://127.0.0.1:${ports.proxy}`
  await servers.answers(`${endpoint}/info`)
  return { endpoint, accessKey: "test:tester", secretKey: "testing" }
}

export const startRadosgw = async (servers: Servers): Promise<Server> => {
  const { place } = servers
  const [v1, v2, port] = [await freePort(), await freePort(), await freePort()]
  for (const name of ["run", "mon", "osd", "rgw"]) mkdirSync(join(place, name))
  const fsid = "11111111-2222-3333-4444-555555555555"
  const config = servers.write(
    "ceph.conf",
    `[global]
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = ${place}/keyring
fsid = ${fsid}
mon_host = [v2:127.0.0.1:${v2},v1:127.0.0.1:${v1}]
mon_initial_members = a
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
osd_pool_default_pg_autoscale_mode = off
run_dir = ${place}/run
admin_socket = ${place}/run/$name.asok
log_file = ${place}/$name.ceph.log
ms_bind_ipv4 = true
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
[mon.a]
mon_data = ${place}/mon
mon_data_avail_crit = 1
mon_data_avail_warn = 2
[osd.0]
osd_objectstore = memstore
memstore_device_bytes = 2147483648
osd_data = ${place}/osd
osd_class_load_list = *
osd_class_default_list = *
osd_memory_target = 939524096
[client.rgw.a]
rgw_frontends = beast endpoint=127.0.0.1:${port}
rgw_dns_name = localhost
rgw_thread_pool_size = 16
rgw_data = ${place}/rgw
`
  )
  const key = (name: string, ...caps: ReadonlyArray<string>) =>
    servers.run(
      "ceph-authtool",
      "keyring",
      "--gen-key",
      "-n",
      name,
      ...caps.flatMap((cap) => ["--cap", ...cap.split("=")])
    )
  servers.run("ceph-authtool", "--create-keyring", "keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
  key("client.admin", "mon=allow *", "osd=allow *", "mgr=allow *")
  key("client.rgw.a", "mon=allow rwx", "osd=allow rwx")
  key("osd.0", "osd=allow *", "mon=allow profile osd")
  const addresses = `[v2:127.0.0.1:${v2},v1:127.0.0.1:${v1}]`
  servers.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, "--clobber", "monmap")
  servers.run(
    "ceph-mon",
    "-c",
    config,
    "-i",
    "a",
    "--mkfs",
    "--monmap",
    "monmap",
    "--keyring",
    "keyring",
    "--mon-data",
    "mon"
  )
  servers.start("mon", "ceph-mon", "-c", config, "-i", "a", "--mon-data", `${place}/mon`, "-f")
  servers.run("ceph", "-c", config, "osd", "create")
  servers.run("ceph", "-c", config, "auth", "import", "-i", "keyring")
  servers.run("ceph-osd", "-c", config, "-i", "0", "--mkfs")
  servers.start("osd", "ceph-osd", "-c", config, "-i", "0", "-f")
  servers.run("ceph", "-c", config, "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=h")
  servers.start("rgw", "radosgw", "-c", config, "--name", "client.rgw.a", "-f")
  const endpoint = `http://127.0.0.1:${port}`
  await servers.answers(endpoint)
  servers.run(
    "radosgw-admin",
    "-c",
    config,
    "--name",
    "client.rgw.a",
    "user",
    "create",
    "--uid=t",
    "--display-name=t",
    "--access-key=AKtest",
    "--secret=SKtest"
  )
  return { endpoint, accessKey: "AKtest", secretKey: "SKtest" }
}

/** What a client of another maker says of an object: boto3, through a presigned address and its own download. */
export const byBoto = (servers: Servers, server: Server, bucket: string, key: string): string =>
  servers.run(
    "/usr/bin/python3",
    "-c",
    `import boto3, hashlib, sys
from botocore.config import Config
e, a, s, b, k = sys.argv[1:]
c = boto3.client("s3", endpoint_url=e, aws_access_key_id=a, aws_secret_access_key=s, region_name="us-east-1",
  config=Config(s3={"addressing_style": "path"}))
print(hashlib.sha256(c.get_object(Bucket=b, Key=k)["Body"].read()).hexdigest(), c.head_object(Bucket=b, Key=k)["ETag"])`,
    server.endpoint,
    server.accessKey,
    server.secretKey,
    bucket,
    key
  ).trim()

export const version = (servers: Servers, ...command: ReadonlyArray<string>): string => servers.run(...command).trim()
export const unpacked = (): string => readFileSync(resolve(root, "../packages"), "utf8")
