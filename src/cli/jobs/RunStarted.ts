/** What is said of a job that was started. */
import { Schema } from "effect"
import { JobView } from "../../schemas/JobView.ts"
import { print } from "../Output.ts"
import { oneLine } from "./JobWords.ts"

const encodeView = Schema.encodeSync(JobView)

/** Its id, and what to do with it now. */
export const showStarted = (job: JobView, title: string, json: boolean) =>
  print(
    json
      ? JSON.stringify(encodeView(job))
      : [
        `Started '${oneLine(title)}' job, ID: ${job.id}`,
        `Use 'stoker jobs tail ${job.id}' to see the output of this job,`,
        `'stoker jobs stop ${job.id}' to stop the job.`
      ].join("\n")
  )
