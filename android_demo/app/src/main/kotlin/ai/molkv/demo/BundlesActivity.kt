package ai.molkv.demo

import ai.molkv.BundleFiles
import android.content.Intent
import android.os.Bundle
import android.view.View
import android.widget.Button
import android.widget.LinearLayout
import android.widget.ProgressBar

/** Chooses among the bundles, and imports one with the system's file picker. */
class BundlesActivity : DemoActivity(R.layout.bundles) {
    private var shown = emptyList<String>()

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        onClick(R.id.import_bundle) {
            @Suppress("DEPRECATION") // its successor is in a library besides the platform
            startActivityForResult(Intent(Intent.ACTION_OPEN_DOCUMENT_TREE), PICKED)
        }
        onClick(R.id.stop) { model.stop() }
    }

    @Deprecated("The platform's own way, without a library.")
    override fun onActivityResult(
        requestCode: Int,
        resultCode: Int,
        data: Intent?,
    ) {
        val tree = data?.data ?: return
        if (requestCode != PICKED || resultCode != RESULT_OK) return
        model.import(demo.importer, PickedFolder(contentResolver, tree))
    }

    override fun show(state: DemoState) {
        text(R.id.message).text = state.message
        enable(R.id.import_bundle, !state.busy)
        val copying = if (state.progress == null) View.GONE else View.VISIBLE
        findViewById<ProgressBar>(R.id.progress).apply {
            visibility = copying
            progress = state.progress ?: 0
        }
        findViewById<View>(R.id.stop).visibility = copying
        if (!state.busy) list(demo.bundles())
    }

    private fun list(bundles: List<BundleFiles>) {
        val names = bundles.map { it.name }
        if (names == shown) return
        shown = names
        val list = findViewById<LinearLayout>(R.id.list)
        list.removeAllViews()
        for (files in bundles) {
            val button = Button(this)
            val name = files.path("")?.name ?: getString(R.string.built_in)
            button.text = getString(R.string.use_bundle, name)
            button.setOnClickListener { model.open(files) }
            list.addView(button)
        }
    }

    companion object {
        /** The request that the picked folder answers. */
        const val PICKED = 1
    }
}
