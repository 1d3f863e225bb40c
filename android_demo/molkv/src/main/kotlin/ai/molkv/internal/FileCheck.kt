package ai.molkv.internal

import ai.molkv.BundleException
import ai.molkv.BundleFiles
import ai.molkv.FileEntry
import ai.molkv.InsufficientSpaceException
import ai.molkv.MolkvBundle
import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.InputStream
import java.security.MessageDigest

/**
 * Compares a bundle's files with its manifest.
 *
 * @param between called between parts of a file; may throw to end
 */
internal class FileCheck(
    private val files: BundleFiles,
    private val between: () -> Unit,
) {
    /** @throws BundleException the file is missing or has another size */
    fun size(entry: FileEntry) {
        val place = place(entry)
        val size =
            files.size(entry.name)
                ?: throw BundleException("$place: file is missing", "copy the bundle again")
        if (size != entry.bytes) {
            throw BundleException(
                "$place: has $size bytes, the manifest says ${entry.bytes}",
                "the copy is incomplete; copy the bundle again",
            )
        }
    }

    /**
     * @param progress called with the bytes read so far
     * @throws BundleException the file has another sha256, or cannot be read
     */
    fun digest(
        entry: FileEntry,
        progress: (bytes: Long) -> Unit = {},
    ) {
        val digest = MessageDigest.getInstance("SHA-256")
        var read = 0L
        parts(entry) { part, size ->
            digest.update(part, 0, size)
            read += size
            progress(read)
        }
        compare(entry, digest)
    }

    /** Copies files into a folder, unless they are there and whole. */
    fun copyUnlessThere(
        entries: List<FileEntry>,
        folder: File,
    ) {
        for (entry in entries) {
            val file = folder.resolve(entry.name)
            if (file.length() == entry.bytes && file.isFile && isWhole(entry, file)) continue
            copy(entry, file)
        }
    }

    private fun copy(
        entry: FileEntry,
        file: File,
    ) {
        val partial = file.resolveSibling(".${file.name}.partial")
        val digest = MessageDigest.getInstance("SHA-256")
        try {
            file.parentFile?.mkdirs()
            FileOutputStream(partial).use { output ->
                parts(entry) { part, size ->
                    digest.update(part, 0, size)
                    writing(file) { output.write(part, 0, size) }
                }
                writing(file) { output.fd.sync() }
            }
            compare(entry, digest)
            if (!partial.renameTo(file)) throw IOException("cannot be renamed")
        } catch (error: IOException) {
            throw MolkvBundle.unreadable(file.path, error)
        } finally {
            partial.delete()
        }
    }

    private fun isWhole(
        entry: FileEntry,
        file: File,
    ): Boolean = file.inputStream().use { sha256(it, between) } == entry.sha256

    private fun parts(
        entry: FileEntry,
        take: (part: ByteArray, size: Int) -> Unit,
    ) {
        try {
            files.open(entry.name).use { it.forEachPart(between, take) }
        } catch (error: IOException) {
            throw MolkvBundle.unreadable(place(entry), error)
        }
    }

    private fun compare(
        entry: FileEntry,
        digest: MessageDigest,
    ) {
        val actual = hexadecimal(digest.digest())
        if (actual == entry.sha256) return
        throw BundleException(
            "${place(entry)}: sha256 is $actual, the manifest says ${entry.sha256}",
            "the file was changed or damaged; copy the bundle again",
        )
    }

    private fun place(entry: FileEntry) = "${files.name}/${entry.name}"
}

private const val PART_BYTES = 1 shl 18

/** Hands out the stream's content part by part; [between] is called before each. */
internal fun InputStream.forEachPart(
    between: () -> Unit,
    take: (part: ByteArray, size: Int) -> Unit,
) {
    val part = ByteArray(PART_BYTES)
    while (true) {
        between()
        val size = read(part)
        if (size < 0) return
        take(part, size)
    }
}

internal fun sha256(
    stream: InputStream,
    between: () -> Unit = {},
): String {
    val digest = MessageDigest.getInstance("SHA-256")
    stream.forEachPart(between) { part, size -> digest.update(part, 0, size) }
    return hexadecimal(digest.digest())
}

/** Runs a write; a full disk comes out typed. */
internal inline fun writing(
    file: File,
    write: () -> Unit,
) {
    try {
        write()
    } catch (error: IOException) {
        throw InsufficientSpaceException(
            "${file.path}: cannot be written: ${error.message}",
            "free storage, or use a smaller bundle",
            error,
        )
    }
}
