package android.widget;

import android.content.Context;

public class TextView extends android.view.View {
  private CharSequence text = "";
  private CharSequence hint = "";

  public TextView(Context context) { super(context); }
  public CharSequence getText() { return text; }
  public final void setText(CharSequence text) { this.text = text; }
  public final void append(CharSequence more) { text = text.toString() + more; }
  public final void setHint(CharSequence hint) { this.hint = hint; }
  public CharSequence getHint() { return hint; }
}
