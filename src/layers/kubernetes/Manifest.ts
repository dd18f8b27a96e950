/** A run as a batch/v1 Job: one pod, one container, once. */
import type { V1EnvVar, V1Job } from "@kubernetes/client-node"
import { createHash } from "node:crypto"
import type { Container } from "../../schemas/Container.ts"
import { type JobKey, keyText } from "../../schemas/Ids.ts"
import type { Limits } from "../../schemas/Limits.ts"
import type { ClusterSetup } from "../../schemas/SandboxClass.ts"

/** On all that Stoker makes, whichever worker it was. */
export const managedBy = "app.kubernetes.io/managed-by=stoker"
/** Says which job it is; the same for all its attempts. */
const JOB_LABEL = "stoker.dev/job"
export const ATTEMPT_LABEL = "stoker.dev/attempt"
/** The request's hash: a later life of the same key may be another request. */
export const REQUEST_ANNOTATION = "stoker.dev/request"
/** Its outcome has been written down: nobody goes on with it. */
export const ACCOUNTED_ANNOTATION = "stoker.dev/accounted"

/** The only container of a pod. */
export const CONTAINER = "main"

/** Until its outcome is written down: a worker that comes back within a day still finds it. Seconds. */
const UNACCOUNTED_TTL = 86_400
/** From then on. */
const SUCCESS_TTL = 30
const FAILURE_TTL = 3600

/** A pod that no node takes in this time is given up. Milliseconds. */
const UNSCHEDULABLE_MS = 300_000
/** Between SIGTERM and SIGKILL where nobody says otherwise. Seconds. */
export const GRACE_SECONDS = 10
/** Owns nothing anywhere. */
const NOBODY = 65_532
/** Names of Jobs become labels, which have 63 characters at most. */
const LONGEST_NAME = 63

export const unschedulableMsOf = ({ unschedulableMs }: ClusterSetup): number => unschedulableMs ?? UNSCHEDULABLE_MS

const hashOf = (key: JobKey): string => createHash("sha256").update(keyText(key)).digest("hex").slice(0, 32)

/** Selects the Jobs of all attempts. */
export const labelsOf = (key: JobKey): string => `${managedBy},${JOB_LABEL}=${hashOf(key)}`

/** Whether somebody else's Job has our name. */
export const isOf = (labels: Readonly<Record<string, string>> | null | undefined, key: JobKey): boolean =>
  labels?.[JOB_LABEL] === hashOf(key)

export const jobName = (container: Container, key: JobKey, attempt: number): string => {
  const end = `-${hashOf(key).slice(0, 12)}-${attempt}`
  return container.name.slice(0, LONGEST_NAME - end.length).replace(/-+$/, "") + end
}

/** How long an accounted Job stays, in seconds. */
export const ttlOf = ({ ttlSeconds }: Container, isSuccess: boolean): number =>
  ttlSeconds ?? (isSuccess ? SUCCESS_TTL : FAILURE_TTL)

/** Kubernetes replaces `$(NAME)` and `$$` in these texts; what a job wrote is meant as it is. */
const literal = (text: string): string => /\$[$(]/.test(text) ? text.replaceAll("$", "$$$$") : text

/** Names are labels too, whose values are shorter. */
const labelValue = (text: string): string => text.slice(0, 63).replace(/[^A-Za-z0-9]+$/, "")

const environment = ({ env, secrets }: Container): Array<V1EnvVar> => [
  ...Object.entries(env).map(([name, value]) => ({ name, value: literal(value) })),
  ...Object.entries(secrets).map(([name, { key, secret }]) => ({
    name,
    valueFrom: { secretKeyRef: { name: secret, key } }
  }))
]

/** All that is asked of the cluster for one attempt. */
export const manifestOf = (options: {
  readonly container: Container
  readonly key: JobKey
  readonly requestHash: string
  readonly attempt: number
  readonly limits: Limits
  readonly setup: ClusterSetup
  readonly namespace: string
}): V1Job => {
  const { attempt, container, key, limits, namespace, requestHash, setup } = options
  const { args, buckets, command, image, nodeSelector, pullSecret, store } = container
  const name = jobName(container, key, attempt)
  const labels = {
    "app.kubernetes.io/name": labelValue(container.name),
    "app.kubernetes.io/instance": name,
    "app.kubernetes.io/part-of": "stoker",
    "app.kubernetes.io/managed-by": "stoker",
    "app.kubernetes.io/created-by": "stoker",
    [JOB_LABEL]: hashOf(key),
    [ATTEMPT_LABEL]: String(attempt)
  }
  const annotations = { "stoker.dev/key": keyText(key), [REQUEST_ANNOTATION]: requestHash }
  const user = setup.runAsUser ?? NOBODY
  const disk = { sizeLimit: String(limits.diskBytes) }
  return {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: { name, namespace, labels, annotations },
    spec: {
      backoffLimit: 0,
      // A pod that is taken away counts once it has ended, so there are never two. Clusters before 1.29 do not know the field, and
      // leave it out.
      podReplacementPolicy: "Failed",
      // The worker's own clock ends a run exactly; this ends what no worker looks after any more.
      activeDeadlineSeconds: Math.ceil((limits.wallMs + unschedulableMsOf(setup)) / 1000) + 30,
      ttlSecondsAfterFinished: UNACCOUNTED_TTL,
      template: {
        metadata: { labels, annotations },
        spec: {
          restartPolicy: "Never",
          terminationGracePeriodSeconds: GRACE_SECONDS,
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          ...(setup.serviceAccount === undefined ? {} : { serviceAccountName: setup.serviceAccount }),
          ...(pullSecret === undefined ? {} : { imagePullSecrets: [{ name: pullSecret }] }),
          ...(nodeSelector === undefined ? {} : { nodeSelector: { ...nodeSelector } }),
          securityContext: {
            runAsNonRoot: true,
            runAsUser: user,
            runAsGroup: user,
            fsGroup: user,
            seccompProfile: { type: "RuntimeDefault" }
          },
          containers: [{
            name: CONTAINER,
            image,
            imagePullPolicy: "IfNotPresent",
            ...(command === undefined ? {} : { command: command.map(literal) }),
            ...(args === undefined ? {} : { args: args.map(literal) }),
            env: environment(container),
            ...((buckets === undefined && store !== true) || setup.storeSecret === undefined
              ? {}
              : { envFrom: [{ secretRef: { name: setup.storeSecret } }] }),
            resources: {
              limits: {
                cpu: `${Math.max(1, Math.round(limits.cpus * 1000))}m`,
                memory: String(limits.memoryBytes),
                "ephemeral-storage": String(limits.diskBytes)
              }
            },
            securityContext: {
              allowPrivilegeEscalation: false,
              capabilities: { drop: ["ALL"] },
              privileged: false
            },
            volumeMounts: [{ name: "work", mountPath: "/work" }, { name: "tmp", mountPath: "/tmp" }]
          }],
          volumes: [{ name: "work", emptyDir: disk }, { name: "tmp", emptyDir: disk }]
        }
      }
    }
  }
}
