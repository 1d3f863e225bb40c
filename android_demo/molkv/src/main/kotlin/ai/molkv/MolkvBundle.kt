package ai.molkv

import ai.molkv.internal.ExpertBlob
import ai.molkv.internal.FileCheck
import ai.molkv.internal.GraphFacts
import ai.molkv.internal.OnnxGraph
import ai.molkv.internal.Resources
import ai.molkv.internal.Sequence
import ai.molkv.internal.Tokenizer
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.withContext
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException
import kotlin.coroutines.coroutineContext

/**
 * A bundle that `molkv export` wrote: checked when it is opened, and then trusted. It holds no
 * resources; sessions do.
 *
 * @property manifest what is in it
 */
public class MolkvBundle private constructor(
    private val files: BundleFiles,
    public val manifest: Manifest,
) {
    /** Where it is. */
    public val name: String get() = files.name

    /** Bytes of the expert blob, which stay on storage. */
    public val expertBytes: Long
        get() = manifest.experts.sumOf { files.size(it) ?: 0L }

    /** Bytes of the dense graph, which are read into memory. */
    public val graphBytes: Long
        get() =
            manifest.backends[BACKEND]?.let { backend ->
                manifest.files.filter { isPartOf(backend.graph, it.name) }.sumOf { it.bytes }
            } ?: 0L

    /**
     * Makes a session: loads the graph, opens the expert blob and the tokenizer. The caller closes
     * it. Sessions share nothing but the system's cache of files.
     *
     * @throws BundleException the bundle has no ONNX graph, or its parts do not belong together
     * @throws BlobFormatException the expert blob breaks its format
     * @throws TokenizerException the tokenizer cannot be used
     * @throws InsufficientSpaceException there is not enough memory
     * @throws UsageException an option cannot work
     */
    public suspend fun openSession(options: SessionOptions = SessionOptions()): MolkvSession {
        checkOptions(options)
        var made: MolkvSession? = null
        try {
            withContext(Dispatchers.IO) {
                made = makeSession(options)
                coroutineContext.ensureActive()
            }
            return checkNotNull(made)
        } catch (error: Throwable) {
            // The caller was cancelled while it was made: nobody else will close it.
            made?.close()
            throw error
        }
    }

    /**
     * The golden cases, which [ParityCheck] runs.
     *
     * @throws BundleException the file is damaged or of another version
     */
    public suspend fun golden(): Golden =
        withContext(Dispatchers.IO) {
            val place = place(manifest.golden)
            GoldenReader(place, manifest.model.vocabSize).read(content(manifest.golden))
        }

    /**
     * Compares the expert blob's sha256 with the manifest, which opening leaves out, because every
     * row carries a checksum of its own. Reads the whole blob.
     *
     * @param progress called with the bytes read so far
     * @throws BundleException it was changed or damaged
     */
    public suspend fun verifyExperts(progress: (bytes: Long) -> Unit = {}) {
        val context = coroutineContext
        withContext(Dispatchers.IO) {
            val check = FileCheck(files) { context.ensureActive() }
            var before = 0L
            for (entry in manifest.files.filter { it.name in manifest.experts }) {
                check.digest(entry) { progress(before + it) }
                before += entry.bytes
            }
        }
    }

    private fun makeSession(options: SessionOptions): MolkvSession {
        val backend =
            manifest.backends[BACKEND] ?: throw BundleException(
                "$name: has no $BACKEND graph, only ${manifest.backends.keys.joinToString()}",
                "export with --backend $BACKEND",
            )
        val resources = Resources()
        try {
            val tokenizer = manifest.tokenizer?.let { resources.own(openTokenizer(it)) }
            val graphFile = graphFile(backend.graph)
            val threads = options.threadsFor(manifest.model.hiddenSize.toInt())
            val graph = resources.own(OnnxGraph(graphFile, place(backend.graph), manifest, threads))
            val blob = openExperts(options)?.also { resources.own(it) }
            blob?.let { GraphFacts(place(manifest.experts.first()), manifest).checkBlob(it.info) }
            val sequence = Sequence(manifest.model, graph, blob, options.chunk)
            return MolkvSession(sequence, tokenizer, name)
        } catch (error: Throwable) {
            resources.close()
            throw error
        }
    }

    private fun openTokenizer(entry: TokenizerEntry): Tokenizer {
        val place = place(entry.file)
        val tokenizer = Tokenizer.parse(place, content(entry.file))
        // A smaller vocabulary is fine: models often pad theirs.
        val problem =
            if (tokenizer.vocabularySize > manifest.model.vocabSize) {
                "has a vocabulary of ${tokenizer.vocabularySize} ids, and the model one of " +
                    "${manifest.model.vocabSize}"
            } else if (tokenizer.tokenCount != entry.vocabularySize) {
                "has ${tokenizer.tokenCount} tokens, the manifest says ${entry.vocabularySize}"
            } else {
                return tokenizer
            }
        tokenizer.close()
        val fix = "use the tokenizer.json that the model was trained with"
        throw TokenizerException("$place: $problem", fix)
    }

    private fun openExperts(options: SessionOptions): ExpertBlob? {
        if (manifest.experts.isEmpty()) return null
        val resident =
            when (options.expertsMode) {
                ExpertsMode.STORAGE -> false
                ExpertsMode.RESIDENT -> true
                ExpertsMode.AUTO -> expertBytes <= ExpertsMode.RESIDENT_BYTES
            }
        val paths = manifest.experts.mapNotNull(files::path)
        if (paths.size == manifest.experts.size) {
            return ExpertBlob.open(paths, options.readers, resident)
        }
        val file =
            manifest.experts.singleOrNull() ?: throw BundleException(
                "$name: its expert blob is ${manifest.experts.size} files",
                "copy the bundle to a folder; only a single file is read from where it is",
            )
        return try {
            files.region(file).use { ExpertBlob.open(it, options.readers, resident) }
        } catch (error: IOException) {
            throw unreadable(place(file), error)
        }
    }

    /** The graph by path, copied first where it has none: the graph engine knows no descriptors. */
    private fun graphFile(graph: String): File {
        files.path(graph)?.let { return it }
        val folder =
            checkNotNull(files.cacheFolder) { "$name: has neither paths nor a cache folder" }
                .resolve(manifest.identity.take(IDENTITY_DIGITS))
        val parts = manifest.files.filter { isPartOf(graph, it.name) }
        FileCheck(files) {}.copyUnlessThere(parts, folder)
        return folder.resolve(graph)
    }

    private fun place(file: String) = "$name/$file"

    private fun content(file: String): ByteArray =
        try {
            files.open(file).use { it.readBytes() }
        } catch (error: IOException) {
            throw unreadable(place(file), error)
        }

    private fun checkOptions(options: SessionOptions) {
        val problem =
            when {
                options.chunk < 1 -> "chunk is ${options.chunk}"
                options.threads < 0 -> "threads is ${options.threads}"
                options.readers !in 1..MOST_READERS -> "readers is ${options.readers}"
                else -> return
            }
        throw UsageException(problem, "chunk is at least 1, threads 0 or more, readers 1 to 64")
    }

    public companion object {
        private const val BACKEND = "onnx"
        private const val MANIFEST = "manifest.json"
        private const val MOST_READERS = 64
        private const val IDENTITY_DIGITS = 16

        /** Opens a bundle folder. */
        public suspend fun open(
            folder: File,
            verifyChecksums: Boolean = true,
        ): MolkvBundle = open(FolderFiles(folder), verifyChecksums)

        /**
         * Opens a bundle and checks that its files are all there and whole.
         *
         * @param verifyChecksums whether to compare the sha256 of every file but the expert blob
         * @throws BundleException a file is missing, has another size or another checksum
         */
        public suspend fun open(
            files: BundleFiles,
            verifyChecksums: Boolean = true,
        ): MolkvBundle {
            val context = coroutineContext
            return withContext(Dispatchers.IO) {
                val manifest = readManifest(files)
                val check = FileCheck(files) { context.ensureActive() }
                manifest.files.forEach(check::size)
                if (verifyChecksums) {
                    manifest.files.filter { it.name !in manifest.experts }.forEach {
                        check.digest(
                            it,
                        )
                    }
                }
                MolkvBundle(files, manifest)
            }
        }

        private fun readManifest(files: BundleFiles): Manifest {
            val place = "${files.name}/$MANIFEST"
            val content =
                try {
                    files.open(MANIFEST).use { it.readBytes() }
                } catch (error: IOException) {
                    throw unreadable(place, error)
                }
            return ManifestReader(place).read(content)
        }

        /** Whether a file is the graph or lies beside it as its data, or inside it. */
        private fun isPartOf(
            graph: String,
            file: String,
        ) = file == graph || file.startsWith("$graph.") || file.startsWith("$graph/")

        internal fun unreadable(
            place: String,
            error: IOException,
        ): BundleException {
            val reason = error.message.orEmpty()
            val missing = error is FileNotFoundException && "No such file" in reason
            // Android's assets say no more than the name.
            return if (missing || place.endsWith("/$reason")) {
                BundleException("$place: file is missing", "check the path", error)
            } else {
                BundleException("$place: cannot be read: $reason", "copy the bundle again", error)
            }
        }
    }
}
