package ai.molkv.demo

import android.app.Activity
import android.os.Bundle
import android.view.View
import android.widget.TextView
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.cancel
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.launch

/**
 * A screen that shows the model's state while it is in front.
 *
 * @param layout its views
 */
abstract class DemoActivity(
    private val layout: Int,
) : Activity() {
    private var scope: CoroutineScope? = null

    protected val demo: DemoApplication get() = application as DemoApplication

    protected val model: DemoModel get() = demo.model

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(layout)
    }

    override fun onResume() {
        super.onResume()
        val scope = CoroutineScope(demo.mainDispatcher).also { this.scope = it }
        scope.launch { model.state.collect(::show) }
    }

    override fun onPause() {
        scope?.cancel()
        scope = null
        super.onPause()
    }

    protected abstract fun show(state: DemoState)

    protected fun text(id: Int): TextView = findViewById(id)

    protected fun onClick(
        id: Int,
        action: () -> Unit,
    ) {
        findViewById<View>(id).setOnClickListener { action() }
    }

    protected fun enable(
        id: Int,
        enabled: Boolean,
    ) {
        findViewById<View>(id).isEnabled = enabled
    }
}
