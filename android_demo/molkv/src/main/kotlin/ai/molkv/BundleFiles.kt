package ai.molkv

import java.io.Closeable
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream

/**
 * Where a bundle's files are: a folder, the assets of an app, or descriptors that another app
 * handed out.
 */
public interface BundleFiles {
    /** The place, for messages. */
    public val name: String

    /** The size of a file in bytes, or null if there is no such file. */
    public fun size(file: String): Long?

    /**
     * Reads a file from its beginning.
     *
     * @throws IOException it is missing or cannot be read
     */
    public fun open(file: String): InputStream

    /** The file's path, or null where it has none; then [region] gives its content. */
    public fun path(file: String): File?

    /**
     * The part of an open descriptor that is the file's content.
     *
     * @throws IOException it is missing, or compressed
     */
    public fun region(file: String): FileRegion

    /** A folder of the app's own, for copies of what the graph engine can read by path only. */
    public val cacheFolder: File?
}

/**
 * A file inside an open descriptor, as Android hands out for assets.
 *
 * @property descriptor the system's number of the open file
 * @property offset where the file begins in it
 * @property length its bytes
 */
public class FileRegion(
    public val descriptor: Int,
    public val offset: Long,
    public val length: Long,
    private val owner: Closeable,
) : Closeable {
    override fun close(): Unit = owner.close()
}

/** A bundle that is a folder. */
public class FolderFiles(
    private val folder: File,
) : BundleFiles {
    override val name: String get() = folder.path
    override val cacheFolder: File? get() = null

    override fun size(file: String): Long? = path(file).takeIf { it.isFile }?.length()

    override fun open(file: String): InputStream = path(file).inputStream()

    override fun path(file: String): File = File(folder, file)

    override fun region(file: String): FileRegion =
        throw FileNotFoundException("${path(file)}: is opened by path")
}
