package android.widget;

import android.content.Context;

public class RadioButton extends Button {
  private boolean checked;

  public RadioButton(Context context) { super(context); }
  public void setChecked(boolean checked) { this.checked = checked; }
  public boolean isChecked() { return checked; }
}
