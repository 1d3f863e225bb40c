package ai.molkv.demo

import android.content.ContentResolver
import android.net.Uri
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import java.io.FileNotFoundException
import java.io.InputStream

/** A folder that the user picked, on whatever the picker offers. */
class PickedFolder(
    private val resolver: ContentResolver,
    private val tree: Uri,
) : DocumentSource {
    private class Entry(
        val document: String,
        val size: Long,
    )

    private val entries: Map<String, Entry> by lazy { list() }

    override val name: String
        get() =
            tree.lastPathSegment
                .orEmpty()
                .substringAfterLast('/')
                .substringAfterLast(':')

    override fun files(): Map<String, Long> = entries.mapValues { it.value.size }

    override fun open(file: String): InputStream {
        val entry = entries[file] ?: throw FileNotFoundException(file)
        val uri = DocumentsContract.buildDocumentUriUsingTree(tree, entry.document)
        return resolver.openInputStream(uri) ?: throw FileNotFoundException(file)
    }

    private fun list(): Map<String, Entry> {
        val root = DocumentsContract.getTreeDocumentId(tree)
        val children = DocumentsContract.buildChildDocumentsUriUsingTree(tree, root)
        val columns =
            arrayOf(
                Document.COLUMN_DOCUMENT_ID,
                Document.COLUMN_DISPLAY_NAME,
                Document.COLUMN_SIZE,
            )
        val cursor =
            resolver.query(children, columns, null, null, null)
                ?: throw FileNotFoundException("$name: the folder cannot be listed")
        return cursor.use {
            val found = LinkedHashMap<String, Entry>()
            while (it.moveToNext()) found[it.getString(1)] = Entry(it.getString(0), it.getLong(2))
            found
        }
    }
}
