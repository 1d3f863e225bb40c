package android.widget;

import android.content.Context;

public class RadioGroup extends LinearLayout {
  public RadioGroup(Context context) { super(context); }
}
