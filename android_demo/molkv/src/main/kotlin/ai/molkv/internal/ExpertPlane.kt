package ai.molkv.internal

import ai.molkv.Manifest
import ai.onnxruntime.OnnxJavaType

/** Kinds of planes; their places are the numbers of molkv_plane_kind. */
internal enum class PlaneKind { KEYS, VALUES, KEY_SCALES, VALUE_SCALES }

/**
 * A plane of the window and the graph's input that reads it.
 *
 * @property rowShape the shape of one row: the input's is rows first, then this
 */
internal class ExpertPlane(
    val input: String,
    val layer: Int,
    val kind: PlaneKind,
    val type: OnnxJavaType,
    val rowShape: LongArray,
) {
    companion object {
        private const val INT4_GROUP = 32

        /** The planes of a model, as docs/graph.md, "Inputs and outputs", lists them. */
        fun of(manifest: Manifest): List<ExpertPlane> {
            val model = manifest.model
            if (!model.hasExperts) return emptyList()
            return (0 until model.layers.toInt()).flatMap { ofLayer(manifest, it) }
        }

        private fun ofLayer(
            manifest: Manifest,
            layer: Int,
        ): List<ExpertPlane> {
            val model = manifest.model
            val precision = manifest.expertPrecision
            val stored = if (precision == "f16") OnnxJavaType.FLOAT16 else OnnxJavaType.INT8
            val keySize = model.expertQueryHeads * model.expertKeySize

            fun plane(
                name: String,
                kind: PlaneKind,
                type: OnnxJavaType,
                vararg size: Long,
            ) = ExpertPlane("$name.$layer", layer, kind, type, longArrayOf(model.experts, *size))

            fun scales(
                name: String,
                kind: PlaneKind,
            ) = plane(name, kind, OnnxJavaType.FLOAT)

            val keys =
                if (model.architecture == "molkv") {
                    listOfNotNull(
                        plane("expert_keys", PlaneKind.KEYS, stored, keySize),
                        scales("expert_key_scales", PlaneKind.KEY_SCALES)
                            .takeIf { precision != "f16" },
                    )
                } else {
                    emptyList()
                }
            val width = model.hiddenSize
            val values =
                when (precision) {
                    "int4" -> {
                        listOf(
                            // Two elements a byte, and a scale for each group.
                            plane(VALUES, PlaneKind.VALUES, OnnxJavaType.UINT8, width / 2),
                            plane(
                                SCALES,
                                PlaneKind.VALUE_SCALES,
                                OnnxJavaType.FLOAT16,
                                width / INT4_GROUP,
                            ),
                        )
                    }

                    "int8" -> {
                        listOf(
                            plane(VALUES, PlaneKind.VALUES, stored, width),
                            scales(SCALES, PlaneKind.VALUE_SCALES),
                        )
                    }

                    else -> {
                        listOf(plane(VALUES, PlaneKind.VALUES, stored, width))
                    }
                }
            return keys + values
        }

        private const val VALUES = "expert_values"
        private const val SCALES = "expert_value_scales"
    }
}
