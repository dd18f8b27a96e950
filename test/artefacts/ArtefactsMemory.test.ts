import { Layer } from "effect"
import { layerMemory } from "../../src/layers/artefacts/ArtefactsMemory.ts"
import { suite } from "./ArtefactSuite.ts"

suite("memory", Layer.fresh(layerMemory))
