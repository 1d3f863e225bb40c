package ai.molkv.internal

import ai.molkv.BundleException
import ai.molkv.Manifest
import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtLoggingLevel
import ai.onnxruntime.OrtSession
import java.io.File
import java.nio.ByteBuffer

/**
 * The dense graph on ONNX Runtime.
 *
 * The self-attention cache is allocated once for the whole context and given to the graph as past
 * and present both, so that a step appends to it in place. Inputs of single steps are kept, one set
 * for each place that the window slides through. One thread at a time, but for [terminate].
 *
 * @param file `dense.onnx`; its data lies beside it
 * @param place the file as the bundle names it, for messages
 */
internal class OnnxGraph(
    file: File,
    private val place: String,
    private val manifest: Manifest,
    threads: Int,
) : AutoCloseable {
    private val resources = Resources()
    private val model = manifest.model
    private val planes: List<ExpertPlane>
    private val takesEmbeddings = manifest.embeddingPrecision != null
    private val session: OrtSession
    private val runOptions: OrtSession.RunOptions
    private val cacheInputs = HashMap<String, OnnxTensor>()
    private val cacheOutputs = HashMap<String, OnnxTensor>()
    private val terminating = Any()
    private var closed = false
    private val decode: Step
    private val decodeInputs = HashMap<Long, Map<String, OnnxTensor>>()

    init {
        try {
            session = resources.own(load(file, threads))
            val facts = GraphFacts(place, manifest)
            facts.checkMetadata(session.metadata.customMetadata)
            facts.checkSizes()
            facts.checkInputs(session.inputNames)
            planes = ExpertPlane.of(manifest)
            runOptions = resources.own(OrtSession.RunOptions())
            allocateCache()
            decode = Step(resources, tokens = 1, logitsRows = 1)
        } catch (error: Throwable) {
            resources.close()
            throw error
        }
    }

    /**
     * Runs some of the new tokens, whose rows the window holds.
     *
     * @param position the absolute position of the first
     * @param every whether each of them gets logits, or the last one alone
     * @return float32 [logits rows, vocabulary], overwritten by the next call
     * @throws GraphTerminated [terminate] was called
     */
    fun run(
        tokenIds: LongArray,
        first: Int,
        count: Int,
        position: Long,
        window: ExpertWindow?,
        every: Boolean,
        take: (logits: ByteBuffer) -> Unit,
    ) {
        if (count == 1) {
            decode.fill(tokenIds, first, position, every)
            val inputs = decodeInputs.getOrPut(window?.place ?: 0) { decodeInputs(window) }
            run(inputs, decode.outputs)
            take(decode.logits)
            return
        }
        Resources().use { owned ->
            val step = Step(owned, count, if (every) count else 1)
            step.fill(tokenIds, first, position, every)
            run(step.inputs + windowTensors(owned, window, count), step.outputs)
            take(step.logits)
        }
    }

    /** Ends the run that is under way, and all later ones, until [resume]. Any thread. */
    fun terminate(): Unit = setTerminate(true)

    fun resume(): Unit = setTerminate(false)

    override fun close() {
        synchronized(terminating) { closed = true }
        resources.close()
    }

    private fun setTerminate(value: Boolean) {
        synchronized(terminating) { if (!closed) runOptions.setTerminate(value) }
    }

    private fun run(
        inputs: Map<String, OnnxTensor>,
        outputs: Map<String, OnnxTensor>,
    ) {
        try {
            session.run(inputs, emptySet(), outputs, runOptions).close()
        } catch (error: OrtException) {
            if (error.message.orEmpty().contains("terminate flag")) throw GraphTerminated()
            throw BundleException(
                "$place: ONNX Runtime ${environment.version} cannot run it: ${error.message}",
                "copy the bundle again, or update ONNX Runtime",
                error,
            )
        }
    }

    private fun load(
        file: File,
        threads: Int,
    ): OrtSession =
        try {
            // Closed after the session: closing it closes the operator's library, too.
            val options = resources.own(OrtSession.SessionOptions())
            options.setIntraOpNumThreads(threads)
            options.setInterOpNumThreads(1)
            options.setExecutionMode(OrtSession.SessionOptions.ExecutionMode.SEQUENTIAL)
            // Failures come as exceptions; nothing is to be logged besides.
            options.setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL)
            options.registerCustomOpLibrary(Native.operatorLibrary)
            environment.createSession(file.path, options)
        } catch (error: OrtException) {
            throw BundleException(
                "$place: ONNX Runtime ${environment.version} cannot load it: ${error.message}",
                "copy the bundle again, or update ONNX Runtime",
                error,
            )
        }

    private fun allocateCache() {
        val precision = manifest.backends.getValue("onnx").cache
        val type =
            when (precision) {
                "fp32" -> OnnxJavaType.FLOAT

                "int8" -> OnnxJavaType.INT8

                else -> throw BundleException(
                    "manifest.json: backends.onnx.cache is $precision",
                    "export with fp32 or int8",
                )
            }
        val shape = longArrayOf(1, model.keyValueHeads, model.context, model.headSize)
        // Each factor is at most 2^24: the product of four may not fit, that of doubles does.
        val bytes = shape.fold(type.size.toDouble()) { product, size -> product * size }
        for (layer in 0 until model.layers) {
            for (kind in listOf("key", "value")) {
                val memory = resources.own(NativeMemory(bytes.toLong()))
                val tensor = resources.own(tensor(memory.buffer, shape, type))
                cacheInputs["past_$kind.$layer"] = tensor
                cacheOutputs["present_$kind.$layer"] = tensor
            }
        }
    }

    private fun decodeInputs(window: ExpertWindow?): Map<String, OnnxTensor> =
        decode.inputs + windowTensors(resources, window, tokens = 1)

    /** What the graph reads of the rows: their planes, and the new tokens' embeddings. */
    private fun windowTensors(
        owner: Resources,
        window: ExpertWindow?,
        tokens: Int,
    ): Map<String, OnnxTensor> {
        if (window == null) return emptyMap()
        val planeTensors = planeTensors(owner, window)
        if (!takesEmbeddings) return planeTensors
        val shape = longArrayOf(1, tokens.toLong(), model.hiddenSize)
        val embeddings = tensor(window.embeddings(tokens), shape, OnnxJavaType.FLOAT)
        return planeTensors + ("embeddings" to owner.own(embeddings))
    }

    private fun planeTensors(
        owner: Resources,
        window: ExpertWindow,
    ): Map<String, OnnxTensor> =
        planes.associate { plane ->
            val memory = window.plane(plane)
            val rowBytes =
                plane.rowShape.fold(plane.type.size.toLong()) { bytes, size ->
                    bytes *
                        size
                }
            val shape = longArrayOf(memory.remaining() / rowBytes, *plane.rowShape)
            plane.input to owner.own(tensor(memory, shape, plane.type))
        }

    /** What a step of one shape reads and writes. */
    private inner class Step(
        owner: Resources,
        private val tokens: Int,
        private val logitsRows: Int,
    ) {
        private val tokenIds = owner.own(NativeMemory(tokens.toLong() * Long.SIZE_BYTES)).buffer
        private val position = owner.own(NativeMemory(Long.SIZE_BYTES.toLong())).buffer
        private val index = owner.own(NativeMemory(logitsRows.toLong() * Long.SIZE_BYTES)).buffer
        val logits: ByteBuffer =
            owner.own(NativeMemory(logitsRows * model.vocabSize * Float.SIZE_BYTES)).buffer
        val inputs: Map<String, OnnxTensor>
        val outputs: Map<String, OnnxTensor>

        init {
            val one = longArrayOf(1)
            val named =
                hashMapOf(
                    "position" to owner.own(integers(position, one)),
                    "logits_index" to owner.own(integers(index, longArrayOf(logitsRows.toLong()))),
                )
            if (!takesEmbeddings) {
                val shape = longArrayOf(1, tokens.toLong())
                named["input_ids"] = owner.own(integers(tokenIds, shape))
            }
            if (planes.isNotEmpty()) {
                // The window has the length that it needs: no row of it is padding.
                val start = owner.own(NativeMemory(Long.SIZE_BYTES.toLong())).buffer
                named["expert_start"] = owner.own(integers(start, one))
            }
            inputs = named + cacheInputs
            val shape = longArrayOf(1, logitsRows.toLong(), model.vocabSize)
            outputs =
                cacheOutputs + ("logits" to owner.own(tensor(logits, shape, OnnxJavaType.FLOAT)))
        }

        fun fill(
            ids: LongArray,
            first: Int,
            at: Long,
            every: Boolean,
        ) {
            tokenIds.asLongBuffer().put(ids, first, tokens)
            position.putLong(0, at)
            val indices = index.asLongBuffer()
            if (every) {
                for (row in 0 until logitsRows) indices.put(row, row.toLong())
            } else {
                indices.put(0, tokens - 1L)
            }
        }
    }

    private companion object {
        val environment: OrtEnvironment by lazy {
            val level = OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL
            OrtEnvironment.getEnvironment(level, "molkv").also { it.setTelemetry(false) }
        }

        fun tensor(
            memory: ByteBuffer,
            shape: LongArray,
            type: OnnxJavaType,
        ): OnnxTensor = OnnxTensor.createTensor(environment, memory, shape, type)

        fun integers(
            memory: ByteBuffer,
            shape: LongArray,
        ): OnnxTensor = tensor(memory, shape, OnnxJavaType.INT64)
    }
}

/** A run was ended before it was done. */
internal class GraphTerminated : RuntimeException("the run was terminated")
