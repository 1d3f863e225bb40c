package ai.molkv.demo

import ai.molkv.BundleException
import ai.molkv.FolderFiles
import ai.molkv.InsufficientSpaceException
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.withContext
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.io.RandomAccessFile
import kotlin.coroutines.CoroutineContext
import kotlin.coroutines.coroutineContext

/** A folder that is not a file system's: the file picker's. */
interface DocumentSource {
    val name: String

    /** Sizes of the files by name. */
    fun files(): Map<String, Long>

    fun open(file: String): InputStream
}

/**
 * Copies bundles into the app's own folder. What was copied before an interruption is kept, and the
 * copy goes on behind it. The manifest comes last, so a folder without one is no bundle yet;
 * opening the copy compares all checksums.
 *
 * @param folder where bundles are, one folder each
 * @param freeBytes of the storage
 */
class BundleImporter(
    private val folder: File,
    private val freeBytes: () -> Long = { folder.apply { mkdirs() }.usableSpace },
) {
    /** The bundles that are complete. */
    fun bundles(): List<File> =
        folder
            .listFiles()
            .orEmpty()
            .filter { it.resolve(MANIFEST).isFile }
            .sorted()

    /**
     * @param progress called with thousandths, not on the main thread
     * @throws BundleException the folder is no bundle, or cannot be read
     * @throws InsufficientSpaceException the storage is too full
     */
    suspend fun copy(
        source: DocumentSource,
        progress: (permille: Int) -> Unit,
    ): FolderFiles {
        val context = coroutineContext
        return withContext(Dispatchers.IO) {
            try {
                copyFiles(source, progress, context)
            } catch (error: IOException) {
                throw BundleException(
                    "${source.name}: cannot be copied: ${error.message}",
                    "check that the folder can be read, and import it again",
                    error,
                )
            }
        }
    }

    private fun copyFiles(
        source: DocumentSource,
        progress: (permille: Int) -> Unit,
        context: CoroutineContext,
    ): FolderFiles {
        val sizes = source.files()
        if (MANIFEST !in sizes) {
            throw BundleException(
                "${source.name}: has no $MANIFEST, so it is no bundle",
                "choose the folder that `molkv export` wrote",
            )
        }
        val target = folder.resolve(source.name)
        val total = sizes.values.sum().coerceAtLeast(1)
        val there = sizes.keys.sumOf { target.resolve(it).length() }
        if (freeBytes() < total - there) {
            throw InsufficientSpaceException(
                "${source.name}: needs ${(total - there) shr 20} MB of storage, " +
                    "${freeBytes() shr 20} MB are free",
                "free storage, or export with --experts int4",
            )
        }
        target.mkdirs()
        // Another bundle of this name is being replaced: it is none until all of it is there.
        target.resolve(MANIFEST).delete()
        var done = 0L
        for (name in sizes.keys.sortedBy { it == MANIFEST }) {
            context.ensureActive()
            copyFile(source, name, target.resolve(File(name).name), sizes.getValue(name)) { bytes ->
                context.ensureActive()
                done += bytes
                progress((PERMILLE * done / total).toInt())
            }
        }
        return FolderFiles(target)
    }

    private fun copyFile(
        source: DocumentSource,
        name: String,
        file: File,
        size: Long,
        copied: (bytes: Long) -> Unit,
    ) {
        val before = file.length().takeIf { it <= size && sameBeginning(source, name, file) } ?: 0
        RandomAccessFile(file, "rw").use { output ->
            output.setLength(before)
            output.seek(before)
            copied(before)
            source.open(name).use { input ->
                skip(input, before)
                val part = ByteArray(PART_BYTES)
                while (true) {
                    val read = input.read(part)
                    if (read < 0) break
                    output.write(part, 0, read)
                    copied(read.toLong())
                }
            }
            output.fd.sync()
        }
    }

    /** Whether what is there may be a beginning of the file, and not of another one of its name. */
    private fun sameBeginning(
        source: DocumentSource,
        name: String,
        file: File,
    ): Boolean {
        val length = minOf(file.length(), PART_BYTES.toLong()).toInt()
        if (length == 0) return true
        val ours = ByteArray(length)
        file.inputStream().use { fill(it, ours) }
        val theirs = ByteArray(length)
        source.open(name).use { fill(it, theirs) }
        return ours.contentEquals(theirs)
    }

    private fun fill(
        stream: InputStream,
        bytes: ByteArray,
    ) {
        var place = 0
        while (place < bytes.size) {
            val read = stream.read(bytes, place, bytes.size - place)
            if (read < 0) return
            place += read
        }
    }

    private fun skip(
        stream: InputStream,
        bytes: Long,
    ) {
        var left = bytes
        while (left > 0) {
            val skipped = stream.skip(left)
            if (skipped <= 0) throw IOException("it has become shorter")
            left -= skipped
        }
    }

    private companion object {
        const val MANIFEST = "manifest.json"
        const val PART_BYTES = 1 shl 18
        const val PERMILLE = 1000L
    }
}
