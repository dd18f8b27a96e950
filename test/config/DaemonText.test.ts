import { assert, describe, it } from "@effect/vitest"
import { Result, Schema, SchemaAST } from "effect"
import { DaemonConfig } from "../../src/schemas/DaemonConfig.ts"
import { example } from "../../src/schemas/DaemonExample.ts"
import { readDaemonConfig } from "../../src/schemas/DaemonText.ts"
import { fileOf, workerConfigOf } from "../../src/schemas/DaemonWorker.ts"
import { faultLine } from "../../src/schemas/JsonDocument.ts"
import { standardConfig, WorkerConfig } from "../../src/schemas/WorkerConfig.ts"

const faults = (content: unknown): ReadonlyArray<string> =>
  Result.match(readDaemonConfig(typeof content === "string" ? content : JSON.stringify(content)), {
    onFailure: (found) => found.map(faultLine),
    onSuccess: () => []
  })

const read = (text: string): DaemonConfig => Result.getOrThrow(readDaemonConfig(text))

describe("a configuration file", () => {
  it("says all that is wrong at once: where, what is there, what should be", () => {
    assert.deepStrictEqual(
      faults({
        slots: "two",
        lease: "1",
        drain: true,
        waiting: -1,
        diskReserve: -4,
        classes: [{ driver: "oci", name: "A b", ceiling: { wall: "1ms", memory: "1K" } }, { driver: "oci" }],
        log: { level: "warn" },
        http: { listen: "9000" },
        cron: [{ name: "a", cron: "60 * * * *", function: "noop", missed: "2d", timeZone: "Mars" }]
      }),
      [
        "slots is \"two\": expected number",
        "waiting is -1: expected jobs from 0 to 100000",
        "lease is \"1\": expected a time with its unit, such as 500ms, 10s, 2m or 1h",
        "drain is true: expected a time with its unit, such as 500ms, 10s, 2m or 1h",
        "diskReserve is -4: expected a size from 0 to 1024T",
        "cron[0].cron is \"60 * * * *\": expected five fields (minute hour day month weekday), or six with seconds first, such as \"30 2 * * 1-5\": Expected a value between 0 and 59",
        "cron[0].timeZone is \"Mars\": expected a time zone, such as Europe/Berlin, +02:00 or UTC",
        "cron[0].missed is \"2d\": expected a time of a day at most",
        "classes[0].name is \"A b\": expected a sandbox class: lower-case letters, digits and '-'",
        "classes[0].ceiling.wall is \"1ms\": expected a time from 10ms to 30d",
        "classes[0].ceiling.memory is \"1K\": expected a size from 4M to 4T",
        "classes[1].name: must be given",
        "http.listen is \"9000\": expected HOST:PORT, such as 127.0.0.1:9464",
        "log.level is \"warn\": expected \"All\" | \"Trace\" | \"Debug\" | \"Info\" | \"Warn\" | \"Error\" | \"Fatal\" | \"None\""
      ]
    )
  })

  const misspelt: ReadonlyArray<readonly [given: string, meant: string]> = [
    ["slot", "slots"],
    ["drainMs", "drain"],
    ["ownerslots", "ownerSlots"],
    ["disk_reserve", "diskReserve"],
    ["retension", "retention"]
  ]
  for (const [given, meant] of misspelt) {
    it(`asks whether ${given} should have been ${meant}`, () => {
      assert.deepStrictEqual(faults({ [given]: 1 }), [`${given} is 1: no such field; did you mean ${meant}?`])
    })
  }

  it("knows an unknown field deep inside by the names that are there", () => {
    assert.match(
      faults({ classes: [{ name: "a", driver: "oci", pool: { colour: 1 } }] }).join(),
      /^classes\[0\]\.pool\.colour is 1: no such field; there are minimum, maximum/
    )
  })

  const contradictions: ReadonlyArray<readonly [name: string, content: DaemonConfigText, said: RegExp]> = [
    ["a default class that is none", { defaultClass: "b" }, /^defaultClass is "b": expected the name of a class: oci$/],
    ["more slots for an owner than there are", { slots: 2, ownerSlots: 3 }, /^ownerSlots is 3: .*at most slots, 2$/],
    ["jobs forgotten before their repeats", { retention: { dedupe: "8d" } }, /^retention\.jobs is "7d": .*8d$/],
    [
      "a driver of another version",
      { classes: [{ name: "a", driver: "docker" }] },
      /^classes\[0\]\.driver.*oci, process, firecracker, qemu/
    ],
    [
      "a pool with more at least than at most",
      { classes: [{ name: "a", driver: "oci", pool: { minimum: 5, maximum: 2 } }] },
      /^classes\[0\]\.pool\.minimum is 5: expected at most the pool's maximum, 2$/
    ],
    [
      "a default above the ceiling",
      { classes: [{ name: "a", driver: "oci", defaults: { wall: "1h" } }] },
      /^classes\[0\]\.defaults\.wall is "1h": expected at most the class's ceiling\.wall, 2m$/
    ],
    [
      "a class that does not fit the budget",
      { budget: { memory: "100M" } },
      /^classes\[0\]\.ceiling\.memory is "1G": expected at most budget\.memory, 100M$/
    ],
    [
      "two classes of one name",
      { classes: [{ name: "a", driver: "oci" }, { name: "a", driver: "process" }] },
      /^classes\[0\]\.name.*\nclasses\[1\]\.name is "a": expected a name that no other class has$/
    ],
    [
      "a schedule of a class that is none",
      { cron: [{ name: "a", cron: "0 0 * * *", function: "noop", class: "b" }] },
      /^cron\[0\]\.class is "b": expected the name of a class: oci$/
    ],
    [
      "two schedules of one name",
      { cron: ["0 0 * * *", "0 1 * * *"].map((cron) => ({ name: "a", cron, function: "noop" })) },
      /^cron .*a different name for each schedule$/
    ],
    ["an isolation that process does not have", {
      classes: [{ name: "p", driver: "process", network: "none" }]
    }, /^classes\[0\]\.network is "none": expected host/]
  ]
  for (const [name, content, said] of contradictions) {
    it(`refuses ${name}`, () => assert.match(faults(content).join("\n"), said))
  }

  it("looks at what belongs together even when something else is wrong, but not through what is wrong itself", () => {
    assert.deepStrictEqual(faults({ slots: 0, ownerSlots: 3, defaultClass: "b" }), [
      "slots is 0: expected jobs from 1 to 10000",
      "defaultClass is \"b\": expected the name of a class: oci"
    ])
  })

  it("never repeats what may be a password", () => {
    const all = [
      ...faults({ amqp: { url: 12345678 } }),
      ...faults({ amqp: { url: "amqp://u:12345678@h", urlFile: "x" } }),
      ...faults({ amqp: "12345678" }),
      ...faults("{ \"amqp\": { \"url\": \"amqp://u:12345678@h\" }, \"slots\": bad }")
    ]
    assert.lengthOf(all, 4)
    assert.notInclude(all.join("\n"), "12345678")
  })

  it("may have comments, but not in strings", () => {
    assert.deepStrictEqual(
      read("{ // \"slots\": 9,\n \"slots\": 4, /* \"drain\": \n */ \"stateDirectory\": \"/a//b/*c*/\" }"),
      { slots: 4, stateDirectory: "/a//b/*c*/" }
    )
  })

  it("says where it stops being JSON", () => {
    assert.deepStrictEqual(faults("{\n  // one\n  \"slots\": 4\n  \"drain\": 3\n}"), [
      "it is not JSON with comments: it breaks off at line 4, column 3"
    ])
    assert.deepStrictEqual(faults("{ \"slots\": bad }"), [
      "it is not JSON with comments: it breaks off at line 1, column 12"
    ])
    assert.deepStrictEqual(faults("{ \"slots\": 4"), ["it is not JSON with comments: it breaks off at its end"])
    assert.deepStrictEqual(faults("[]"), ["it expected object"])
  })

  it("takes times and sizes as people write them, and numbers as milliseconds and bytes", () => {
    const file = read(
      "{ \"drain\": \"1.5m\", \"lease\": 2000, \"diskReserve\": \"1G\", \"budget\": { \"memory\": 2000000000 } }"
    )
    const { budget, diskReserveBytes, drainMs, leaseMs } = workerConfigOf(file)
    assert.deepStrictEqual({ budget, diskReserveBytes, drainMs, leaseMs }, {
      budget: { memoryBytes: 2_000_000_000 },
      diskReserveBytes: 2 ** 30,
      drainMs: 90_000,
      leaseMs: 2000
    })
  })

  it("means the standard worker when it is empty, with as many sandboxes ready as slots", () => {
    const { classes: [{ pool, ...standing }], ...rest } = workerConfigOf({})
    const { classes, ...standard } = standardConfig
    assert.deepStrictEqual(rest, standard)
    assert.deepStrictEqual(standing, classes[0])
    assert.deepInclude(pool, { minimum: 2, maximum: 6 })
    assert.isTrue(Schema.is(WorkerConfig)(workerConfigOf({})))
  })

  it("survives being written for a worker and read again", () => {
    const file = read(JSON.stringify({
      slots: 3,
      ownerSlots: 2,
      budget: { memory: "8G", cpus: 2 },
      classes: [
        { name: "small", driver: "oci", ceiling: { memory: "128M" }, defaults: { memory: "64M", disk: "64M" } },
        { name: "none-ready", driver: "oci", pool: { maximum: 0 } },
        { name: "trusted", driver: "process", pool: { charge: { memory: "1M", cpus: 0.5 }, maxAge: "10m" } }
      ],
      defaultClass: "trusted",
      cron: [
        { name: "a", cron: "0 0 * * *", function: "noop" },
        {
          name: "b",
          cron: "0 9 * * 1-5",
          timeZone: "Europe/Berlin",
          function: "fib",
          args: { number: 3 },
          class: "small",
          limits: { wall: "5s", memory: "32M" },
          owner: "ops",
          missed: "1h"
        }
      ]
    }))
    const config = workerConfigOf(file)
    assert.deepInclude(config.cron?.[0], {
      timeZone: "UTC",
      args: {},
      limits: {},
      owner: "cron" as never,
      missedMs: 600_000
    })
    assert.deepInclude(config.cron?.[1], { limits: { wallMs: 5000, memoryBytes: 2 ** 25 }, missedMs: 3_600_000 })
    const written = JSON.stringify(Schema.encodeSync(DaemonConfig)(fileOf(config)))
    assert.deepStrictEqual(workerConfigOf(read(written)), config)
  })
})

type DaemonConfigText = Readonly<Record<string, unknown>>

describe("the example", () => {
  const uncommented = example.replaceAll(/^(\s*)\/\/ (?=")/gm, "$1")

  it("is a configuration file, and means the standard worker", () => {
    assert.deepStrictEqual(workerConfigOf(read(example)), workerConfigOf({}))
  })

  it("is one with its commented fields too", () => {
    // But for what belongs to other drivers than the example's.
    const { amqp, budget, http, ownerSlots } = read(uncommented.replaceAll(/^ *"(?:machine|cluster)": .*,\n/gm, ""))
    assert.deepInclude(budget, { sandboxes: 100 })
    assert.deepStrictEqual({ amqp, http, ownerSlots }, {
      amqp: { urlFile: "/etc/stoker/amqp-url" },
      http: { listen: "127.0.0.1:9464" },
      ownerSlots: 1
    })
  })

  it("has every field there is, each with its meaning", () => {
    const names = new Set<string>()
    const collect = (ast: SchemaAST.AST): void => {
      if (SchemaAST.isArrays(ast)) [...ast.elements, ...ast.rest].forEach(collect)
      if (!SchemaAST.isObjects(ast)) return
      for (const { name, type } of ast.propertySignatures) {
        names.add(String(name))
        collect(type)
      }
    }
    collect(DaemonConfig.ast)
    // A secret's other forms, and what this version does not have.
    for (const name of ["url", "urlEnv", "journal", "secretFile", "accessKeyEnv", "secretKeyEnv"]) names.delete(name)
    assert.isAbove(names.size, 60)
    for (const name of names) assert.include(uncommented, `"${name}":`)
    assert.notMatch(example, /\/\/ *\n/)
  })
})
